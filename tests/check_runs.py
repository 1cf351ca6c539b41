"""check_runs.py PAGE DOM RUN...: is the page right that a browser has made of PAGE?

PAGE is of scripts/runs.sh compare RUN..., and DOM is what the browser holds. Checks the figures
against each run's log.jsonl and summary.json, and the page as check_report.py does.
"""
import json
import pathlib
import sys

from page import Tree, check, check_page, failures, last_of, near, same

SUMMARY = ["test_accuracy", "test_loss", "best_test_accuracy", "train_seconds", "images_per_s",
           "parameters"]
CURVES = {"Test loss": "test_loss", "Test accuracy": "test_accuracy"}


def check_run(name, cells, charts, run):
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    tests = [r for r in log if "test_loss" in r]
    summary = json.loads((run / "summary.json").read_text())
    for key, shown in zip(SUMMARY, cells):
        expected = summary[key] if summary[key] is not None else tests[-1][key]
        check(same(shown, expected), f"{name}: {key} {shown} for {expected}")
    for title, key in CURVES.items():
        for over in ("steps", "time"):
            found = last_of(charts[f"{title} over {over}"], name)
            check(near(found, tests[-1][key]), f"{name}: {title} over {over} ends at {found}")


def check_settings(tree, names, runs):
    options = [json.loads((run / "run.json").read_text())["options"] for run in runs]
    differ = {k for o in options for k in o if any(p.get(k, ...) != o[k] for p in options)} - {"out"}
    table = next(t for t in tree.all("table") if t.parent.parent.first("figcaption").text() == "What differs")
    columns = [t.text() for t in table.first("thead").all("th")]
    check(differ <= set(columns), f"what differs: {columns} for {differ}")
    for row, run in zip(table.first("tbody").all("tr"), options):
        for column, cell in zip(columns[1:], row.all("td")):
            if column in ("lr", "epochs"):
                check(cell.text() == f"{run[column]:.6g}", f"{column}: {cell.text()}")
    check([r.first("th").text() for r in table.first("tbody").all("tr")] == names, "names of runs")


page, dom, *runs = map(pathlib.Path, sys.argv[1:])
text = page.read_text()
check_page(text, Tree(text).root)
tree = Tree(dom.read_text()).root
charts = {c.first("title").text(): c for c in tree.all("svg", role="img")}
check(len(charts) == 6, f"charts: {list(charts)}")
rows = list(tree.first("table").first("tbody").all("tr"))
names = [row.first("th").text() for row in rows]
check(names == [run.name for run in runs], f"runs: {names}")
for row, run in zip(rows, runs):
    check_run(run.name, [d.attributes["value"] for d in row.all("data")], charts, run)
check_settings(tree, names, runs)
print("\n".join(failures))
sys.exit(1 if failures else 0)
