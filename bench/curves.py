#!/usr/bin/env python3
"""Losses of the CIFAR network beside those of the same recipe in PyTorch, from several seeds.

    bench/curves.py --data data/cifar10 --device cuda              recipe B, 8 epochs
    bench/curves.py --data data/cifar10 --batch 500 --steps 100    an hour on a CPU

Both sides draw their own weights, orders and shifts, so curves can only agree as two samples of seeds
do. For each tenth of the run the table gives PyTorch's mean training loss and its standard deviation
over the seeds, and ours with the difference of the means in standard deviations (of both samples
together); then the same for the test accuracy. Within about 1 the curves lie in each other's spread.
PYTHON names a Python with torch (default build/bench-venv/bin/python, made by bench/setup.sh).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = os.environ.get("PYTHON", str(ROOT / "build" / "bench-venv" / "bin" / "python"))
PARTS = 10


def output(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def length(o):
    return ["--steps", str(o.steps)] if o.steps else ["--epochs", str(o.epochs)]


def ours(o, dtype, seed):
    """Losses of a run's steps and its test accuracy."""
    with tempfile.TemporaryDirectory() as directory:
        run = pathlib.Path(directory) / "run"
        output(["./train_airbench", "--data", o.data, "--device", o.device, "--dtype", dtype,
                "--width", str(o.width), "--batch-size", str(o.batch), *length(o),
                "--seed", str(seed), "--report", "off", "--quiet", "--out", str(run)])
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        summary = json.loads((run / "summary.json").read_text())
    return [line["loss"] for line in lines if "loss" in line], summary["test_accuracy"]


def peer(o, seed):
    command = [PYTHON, "bench/gpu/recipe.py", "--data", o.data, "--device", o.device, "--seeds", "0",
               "--seed", str(seed), "--width", str(o.width), "--batch", str(o.batch), *length(o)]
    run = json.loads(output(command))["cold"]
    return run["losses"], run["test_accuracy"]


def parts(losses):
    """The mean of each tenth of a curve; a long run of ours has a loss for several steps."""
    n = len(losses)
    edges = [i * n // PARTS for i in range(PARTS + 1)]
    return {f"loss, tenth {i + 1}": statistics.fmean(losses[edges[i]:edges[i + 1]]) for i in range(PARTS)}


def values(runs):
    """What is compared: name to a list with a value for each seed."""
    rows = {}
    for losses, accuracy in runs:
        for name, x in {**parts(losses), "test accuracy": accuracy}.items():
            rows.setdefault(name, []).append(x)
    return rows


def table(sides):
    names = [name for name in sides if name != "PyTorch"]
    print("| | PyTorch | deviation | " + " | ".join(f"{n} | deviation | apart" for n in names) + " |")
    print("| --- " * (3 + 3 * len(names)) + "|")
    for row, theirs in sides["PyTorch"].items():
        mean, deviation = statistics.fmean(theirs), statistics.stdev(theirs)
        cells = [f"{mean:.4f}", f"{deviation:.4f}"]
        for name in names:
            own, own_deviation = statistics.fmean(sides[name][row]), statistics.stdev(sides[name][row])
            both = ((deviation ** 2 + own_deviation ** 2) / 2) ** 0.5
            cells += [f"{own:.4f}", f"{own_deviation:.4f}", f"{(own - mean) / both:+.2f}"]
        print(f"| {row} | " + " | ".join(cells) + " |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--device", default="cpu")
    p.add_argument("--dtypes", default="fp32,bf16")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--batch", type=int, default=2000)
    p.add_argument("--width", type=float, default=1)
    o = p.parse_args()
    if o.seeds < 2:
        p.error("--seeds: a spread needs 2 or more")
    if 0 < o.steps < PARTS:
        p.error(f"--steps: the curve has {PARTS} parts, so at least {PARTS}")
    o.data = str(pathlib.Path(o.data).resolve())
    sides = {name: [] for name in ["PyTorch"] + o.dtypes.split(",")}
    for seed in range(1, o.seeds + 1):
        for name, runs in sides.items():
            print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
            runs.append(peer(o, seed) if name == "PyTorch" else ours(o, name, seed))
    print(f"# {' '.join(sys.argv)}: {o.seeds} seeds each")
    table({name: values(runs) for name, runs in sides.items()})


if __name__ == "__main__":
    main()
