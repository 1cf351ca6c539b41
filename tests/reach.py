"""reach.py FILE:FUNCTION...: the functions that a reader can come to from these, by name.

Prints "N functions in N files", then each file with its functions. Calls through a table (k->name, c.name())
are not followed, so kernels do not count. Names are matched, so the count is approximate.
"""
import collections
import pathlib
import re
import subprocess
import sys

Function = collections.namedtuple("Function", "file name body")


def functions_of(file):
    """Every function starts with a line "{" and ends with a line "}"."""
    lines = pathlib.Path(file).read_text().split("\n")
    at = 0
    while at < len(lines):
        if lines[at] == "{":
            end = next(i for i in range(at, len(lines)) if lines[i].startswith("}"))
            first = at - 1
            while first > 0 and lines[first].startswith(" "):
                first -= 1
            name = re.search(r"(\w+)\s*\(", " ".join(lines[first:at]))
            if name:
                body = re.sub(r"//.*|\"(\\.|[^\"])*\"", "", "\n".join(lines[at:end]))
                yield Function(file, name.group(1), body)
            at = end
        at += 1


def main():
    listed = subprocess.check_output(["git", "ls-files", "*.c", "*.h"], text=True).split()
    files = [f for f in listed if not f.startswith(("tests/", "bench/", "kernels/cuda/", "pages/"))]
    defined = collections.defaultdict(list)
    for file in files:
        for function in functions_of(file):
            defined[function.name].append(function)
    todo = []
    for argument in sys.argv[1:]:
        file, name = argument.split(":")
        found = [f for f in defined[name] if f.file == file]
        if not found:
            sys.exit(f"reach.py: {file} has no function {name}")
        todo += found
    seen = set()
    while todo:
        function = todo.pop()
        if function in seen:
            continue
        seen.add(function)
        for through, name in re.findall(r"(->|\.)?\b(\w+)\s*\(", function.body):
            own = [f for f in defined[name] if f.file == function.file]
            if not through:
                todo += own or defined[name]
    by_file = collections.defaultdict(set)
    for function in seen:
        by_file[function.file].add(function.name)
    print(f"{sum(map(len, by_file.values()))} functions in {len(by_file)} files")
    for file, names in sorted(by_file.items()):
        print(f"{file}: {len(names)}: {' '.join(sorted(names))}")


main()
