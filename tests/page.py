"""What the checks of report pages share: a page as a tree, and what every page must be."""
import html.parser
import re

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


def last_of(chart, name):
    found = re.search(rf"{re.escape(name)}: first \S+, last ([^,]+),", chart.first("desc").text())
    return found and float(found[1])


def near(shown, expected):
    """What is printed with 4 digits."""
    return shown is not None and abs(shown - expected) <= 6e-4 * abs(expected)


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
