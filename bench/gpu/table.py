#!/usr/bin/env python3
"""table.py floors             the least time of each row on one H200, and what it follows from
table.py FILE [BATCH]        ratios, from lines of row, program, seconds (bench/gpu/run.sh)

The rates are those that were measured on an H200: 790 TFLOP/s in bf16, 4.3 TB/s. FLOP leave out the
outputs that pooling drops; bytes are one reading of x and w and one writing of y in bf16, pooled
where the layer pools.
"""
import collections
import sys

FLOP_RATE, BYTE_RATE = 790e12, 4.3e12
Layer = collections.namedtuple("Layer", "name h cin cout pool")
LAYERS = [
    Layer("24->64 @31 pool", 31, 24, 64, True),
    Layer("64->64 @15", 15, 64, 64, False),
    Layer("64->256 @15 pool", 15, 64, 256, True),
    Layer("256->256 @7", 7, 256, 256, False),
    Layer("256->256 @7 pool", 7, 256, 256, True),
    Layer("256->256 @3", 3, 256, 256, False),
]
OPERATIONS = ("forward", "data", "weight")
WHITENING_FLOP = 0.55e6  # of an image
SPEEDRUN_IMAGES = 8 * 25 * 2000
MLP_FLOP = 3.209e6   # the same of 784-512-512-10, without the first layer's data gradient


def layer_flop(layer, batch):
    side = layer.h // 2 * 2 if layer.pool else layer.h
    return 2 * batch * side ** 2 * layer.cout * 9 * layer.cin


def layer_bytes(layer, batch):
    out = layer.h // 2 if layer.pool else layer.h
    return 2 * (batch * (layer.h ** 2 * layer.cin + out ** 2 * layer.cout) + 9 * layer.cin * layer.cout)


def floors(batch):
    """Row: (FLOP, bytes), of which the slower one decides."""
    rows = {f"{operation} {x.name}": (layer_flop(x, batch), layer_bytes(x, batch))
            for x in LAYERS for operation in OPERATIONS}
    step = sum(3 * layer_flop(x, batch) for x in LAYERS) + WHITENING_FLOP * batch
    rows[f"step C B={batch}"] = (step, 0)
    for b in (128, 512, 2048, 8192):  # the update's 27 MB stay in the cache: not counted
        rows[f"step MLP B={b}"] = (MLP_FLOP * b, 0)
    rows["epoch MNIST B=512"] = (MLP_FLOP * 512 * 117, 0)
    rows["speedrun"] = (step / batch * SPEEDRUN_IMAGES, 0)
    return rows


def floor_seconds(work):
    return max(work[0] / FLOP_RATE, work[1] / BYTE_RATE)


def show(seconds):
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 \
        else f"{1e6 * seconds:.3g} us"


def print_floors(batch):
    print("| row | GFLOP | MB | floor | limit |\n| --- | --- | --- | --- | --- |")
    for row, work in floors(batch).items():
        limit = "FLOP" if work[0] / FLOP_RATE >= work[1] / BYTE_RATE else "memory"
        print(f"| {row} | {work[0] / 1e9:.4g} | {work[1] / 1e6:.4g} | {show(floor_seconds(work))} | {limit} |")


def print_ratios(path, batch):
    rows = {}
    with open(path) as f:
        for line in f:
            row, program, seconds = line.rstrip("\n").split("\t")
            rows.setdefault(row, {})[program] = float(seconds)
    least = floors(batch)
    print("| row | H200 floor | nn.c | floor / nn.c | peer | its time | nn.c / peer |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row, programs in rows.items():
        ours = programs.get("nn.c")
        floor = floor_seconds(least[row]) if row in least else None
        of_floor = f"{floor / ours:.0%}" if ours and floor else "-"
        left = f"| {row} | {show(floor) if floor else '-'} | {show(ours) if ours else '-'} | {of_floor} |"
        peers = [p for p in programs if p != "nn.c"] or ["-"]
        for peer in peers:
            theirs = programs.get(peer)
            ratio = f"{ours / theirs:.2f}" if ours and theirs else "-"
            print(f"{left} {peer} | {show(theirs) if theirs else '-'} | {ratio} |")


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
    elif sys.argv[1] == "floors":
        print_floors(1536)
    else:
        print_ratios(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1536)


if __name__ == "__main__":
    main()
