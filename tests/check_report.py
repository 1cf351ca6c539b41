"""check_report.py RUN DOM: is the page that a browser has made of RUN/report.html right?

DOM is what the browser holds. Checks the figures against RUN/log.jsonl and RUN/summary.json (where
the run has ended), and the page: balanced tags, texts for pictures, nothing from elsewhere, size,
contrasts.
"""
import html.parser
import json
import pathlib
import re
import sys

VOID = {"meta", "link", "img", "br"}
failures = []


def check(condition, message):
    if not condition:
        failures.append(message)


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children, self.own = [], ""

    def text(self):
        return self.own + "".join(child.text() for child in self.children)

    def all(self, tag, **wanted):
        for child in self.children:
            if child.tag == tag and all(child.attributes.get(k) == v for k, v in wanted.items()):
                yield child
            yield from child.all(tag, **wanted)

    def first(self, tag, **wanted):
        return next(self.all(tag, **wanted), None)


class Tree(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.root = self.at = Element("", {}, None)
        self.feed(text)
        check(self.at is self.root, f"<{self.at.tag}> is not closed")

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        check(len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}")
        element = Element(tag, dict(attributes), self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.at = self.at.parent

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        check(self.at.tag == tag, f"</{tag}> inside <{self.at.tag}>")
        if self.at.tag == tag:
            self.at = self.at.parent

    def handle_data(self, data):
        self.at.own += data


def same(shown, expected):
    """What is printed with 9 digits."""
    if expected is None:
        return shown == "nan"
    return abs(float(shown) - expected) <= 1e-8 * abs(expected)


def check_results(tree, summary):
    keys = {"Test accuracy": "test_accuracy", "Test loss": "test_loss",
            "Best epoch's accuracy": "best_test_accuracy", "Training time": "train_seconds",
            "Images a second": "images_per_s", "Parameters": "parameters",
            "FLOP to train an image": "flop_per_image"}
    results = {d.first("dt").text(): d.first("data").attributes["value"]
               for d in tree.first("dl", **{"class": "results"}).children}
    check(len(results) >= len(keys) - 1, f"results: {results}")
    for name, value in results.items():
        check(same(value, summary[keys[name]]), f"{name}: {value} for {summary[keys[name]]}")
    options = {d.first("dt").text(): d.first("dd").text()
               for d in tree.first("dl", **{"class": "options"}).children}
    check(len(options) == len(summary["options"]), f"{len(options)} options")
    for key, value in summary["options"].items():
        shown = options.get("--" + key.replace("_", "-"))
        expected = {True: "on", False: "off", None: "–"}.get(value, value) \
            if value is None or isinstance(value, (bool, str)) else f"{value:.6g}"
        check(shown == str(expected), f"option {key}: {shown} for {expected}")


def last_of(chart, name):
    found = re.search(rf"{name}: first \S+, last ([^,]+),", chart.first("desc").text())
    return found and float(found[1])


def near(shown, expected):
    """What is printed with 4 digits."""
    return shown is not None and abs(shown - expected) <= 6e-4 * abs(expected)


def check_curves(tree, log):
    steps = [r for r in log if "loss" in r]
    tests = [r for r in log if "test_loss" in r]
    charts = {c.first("title").text(): c for c in tree.all("svg", role="img")}
    loss, accuracy = charts["Loss, mean per image"], charts["Accuracy, share of the images"]
    check(near(last_of(loss, "train"), steps[-1]["loss"]), "the loss' curve")
    check(near(last_of(accuracy, "train"), steps[-1]["train_accuracy"]), "the train accuracy's curve")
    check(near(last_of(charts["Learning rate"], "learning rate"), steps[-1]["lr"]), "the rate's curve")
    if not tests:
        return
    check(near(last_of(loss, "test"), tests[-1]["test_loss"]), "the test loss' curve")
    check(near(last_of(accuracy, "test"), tests[-1]["test_accuracy"]), "the test accuracy's curve")
    table = next(t for t in tree.all("table") if "test accuracy" in t.first("thead").text())
    rows = list(table.first("tbody").all("tr"))
    check(len(rows) == min(len(tests), 100), f"{len(rows)} rows of {len(tests)} evaluations")
    for row, record in zip(rows, tests[-100:]):
        shown = [d.attributes["value"] for d in row.all("data")]
        check(same(shown[0], record["test_loss"]) and same(shown[1], record["test_accuracy"]),
              f"evaluation: {shown} for {record}")
    norms = [r for r in log if "weight_norm" in r][-1]
    table = next(t for t in tree.all("table") if "gradient" in t.first("thead").text())
    for row in table.first("tbody").all("tr"):
        name = row.first("th").text()
        weight, gradient = [d.text() for d in row.all("td")]
        check(near(float(weight), norms["weight_norm"][name]), f"norm of {name}: {weight}")
        frozen = name not in norms["grad_norm"]
        check(gradient == "frozen" if frozen else near(float(gradient), norms["grad_norm"][name]),
              f"norm of the gradient of {name}: {gradient}")


def check_matrix(tree, accuracy):
    cells = [[int(d.text() or 0) for d in row.all("td")]
             for row in tree.first("div", **{"class": "matrix"}).first("tbody").all("tr")]
    total = sum(map(sum, cells))
    right = sum(row[i] for i, row in enumerate(cells))
    check(abs(right / total - accuracy) < 1e-6, f"confusion: {right} of {total} right for {accuracy}")
    section = next(s for s in tree.all("section") if s.first("h2").text() == "Worst mistakes")
    pictures = list(section.all("img"))
    check(len(pictures) == min(50, total - right), f"{len(pictures)} mistakes of {total - right}")


def luminance(color):
    digits = color[1:] if len(color) == 7 else "".join(2 * d for d in color[1:])
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def check_colors(style):
    light, dark = (dict(re.findall(r"--(\w+):(#\w+)", block))
                   for block in re.findall(r":root\{([^}]*)\}", style))
    for name, colors in (("light", light), ("dark", dark)):
        for text in ("text", "soft"):
            for back in ("card", "back"):
                found = contrast(colors[text], colors[back])
                check(found >= 4.5, f"{name}: {text} on {back} is {found:.2f}:1")
        for curve in range(6):
            found = contrast(colors[f"c{curve}"], colors["card"])
            check(found >= 3, f"{name}: colour {curve} is {found:.2f}:1")


def check_page(text, tree):
    check(len(text) < 1e6, f"{len(text)} bytes")
    check("://" not in re.sub(r'base64,[^"]*', "", text), "an address of elsewhere")
    check(not list(tree.all("script")), "a script")
    for tag, name in (("img", "src"), ("link", "href"), ("a", "href")):
        for element in tree.all(tag):
            check(element.attributes[name].startswith(("data:", "#")), f"{tag} {name}")
    check(all(i.attributes.get("alt") for i in tree.all("img")), "a picture without a text")
    check(all(c.first("title") and c.first("desc") for c in tree.all("svg", role="img")),
          "a chart without title or description")
    check(tree.first("html").attributes.get("lang") == "en", "no language")
    check(len(list(tree.all("h1"))) == 1, "not one h1")
    check(all(s.first("h2") for s in tree.all("section")), "a section without a heading")
    check(all(t.attributes.get("scope") for t in tree.all("th")), "a th without scope")
    ids = [e.attributes["id"] for e in tree.all("div") if "id" in e.attributes]
    check(len(ids) == len(set(ids)), "an id twice")
    check_colors(tree.first("style").text())


run, dom = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
page = (run / "report.html").read_text()
check(page.startswith("<!DOCTYPE html>\n") and page.endswith("</html>\n"), "the page is not whole")
check_page(page, Tree(page).root)
tree = Tree(dom.read_text()).root
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
if (run / "summary.json").exists():
    summary = json.loads((run / "summary.json").read_text())
    check_results(tree, summary)
    check_curves(tree, log)
    if summary["test_accuracy"] is not None:
        check_matrix(tree, summary["test_accuracy"])
    check(not tree.first("meta", **{"http-equiv": "refresh"}), "an ended run's page reloads")
else:
    check(tree.first("meta", **{"http-equiv": "refresh"}), "a live run's page does not reload")
print("\n".join(failures))
sys.exit(1 if failures else 0)
