"""check_report.py RUN DOM: is the page that a browser has made of RUN/report.html right?

DOM is what the browser holds. Checks the figures against RUN/log.jsonl and RUN/summary.json (where
the run has ended), and the page: balanced tags, texts for pictures, nothing from elsewhere, size,
contrasts.
"""
import json
import pathlib
import sys

from page import Tree, check, check_page, failures, last_of, near, same

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
        expected = "–" if value is None else ["off", "on"][value] if isinstance(value, bool) \
            else f"{value:.6g}" if isinstance(value, float) else value
        check(shown == str(expected), f"option {key}: {shown} for {expected}")


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
             for row in tree.first("figure", **{"class": "matrix"}).first("tbody").all("tr")]
    total = sum(map(sum, cells))
    right = sum(row[i] for i, row in enumerate(cells))
    check(abs(right / total - accuracy) < 1e-6, f"confusion: {right} of {total} right for {accuracy}")
    section = next(s for s in tree.all("section") if s.first("h2").text() == "Worst mistakes")
    pictures = list(section.all("img"))
    check(len(pictures) == min(50, total - right), f"{len(pictures)} mistakes of {total - right}")


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
