#!/usr/bin/env python3
"""A model of the step's time on 1 to 4,096 GPUs, or on this machine's processes.

    ./train_cnn --steps 20 --profile --out run ...         # one process
    bench/scale.py run/profile.json                        # GPUs: docs/scaling.md
    bench/scale.py run/profile.json --bn local --global-batch 8192

    mpirun -np 2 build/native/time_collectives cpu >exchange.txt
    bench/scale.py run/profile.json --exchange exchange.txt # as many processes as were measured there

Operations and their times come from the profile. On a GPU that was not profiled (--gpu) each takes
the longest of its arithmetic at the GPU's rate, its bytes at the bandwidth, and a kernel's least
time; the default is an H200. Exchanges between GPUs cost what NCCL's own model says, in groups of
eight GPUs with NVLink, and InfiniBand between the groups.

The step is played through: operations one after the other; a bucket of gradients starts when its
last one is written and the exchange before has ended; batch norm waits for its exchanges at once.
"""
import argparse
import json
import math
import os
import re

BUCKET = 1 << 18  # floats, as in kernels/distributed.c
GROUP = 8         # GPUs with NVLink between them

# What of the data sheets' figures is reached: 989 TFLOP/s in bf16, 4.8 TB/s.
GPUS = {"h200": dict(flop=0.4 * 989e12, bytes=0.75 * 4.8e12, kernel=3e-6)}

# GB/s that an all-reduce moves on each GPU's links (nccl-tests' bus bandwidth), and NCCL's latencies
# in microseconds for its protocols LL, LL128 and Simple (src/graph/tuning.cc).
NVLINK_GBS, NETWORK_GBS = 370, 0.85 * 8 * 50
BASE = {"ring": (6.6, 14.0, 8.4), "tree": (6.8, 14.0, 8.4)}
NVLINK = {"ring": (0.6, 1.9, 3.4), "tree": (0.6, 1.25, 4.0)}
NETWORK = {"ring": (2.7, 4.0, 14.0), "tree": (5.0, 8.5, 14.0)}
SHARE = {"ring": (1 / 4, 0.92, 1), "tree": (0.9 / 3.8, 0.9 * 0.92, 0.9)}  # of the bandwidth


class Operation:
    def __init__(self, name, shape, seconds, flop, bytes_):
        self.name, self.shape, self.seconds, self.flop, self.bytes = name, shape, seconds, flop, bytes_
        self.update = name.endswith("_update") or name == "clip_gradients"

    def gradient(self):
        """Floats of the gradients that it writes."""
        if self.name.endswith("backward_weight"):
            size_in, size_out = map(int, re.search(r"(\d+)->(\d+)", self.shape).groups())
            kernel = re.search(r",k(\d+)", self.shape)
            weight = size_in * size_out
            return weight * int(kernel[1]) ** 2 if kernel else weight + size_out
        if self.name in ("bias_act_backward", "norm_act_backward"):
            return self.channels()
        return 0

    def channels(self):
        return int(re.search(r"x(\d+)(->|,|$)", self.shape)[1])

    def sums_norm(self):
        return self.name.endswith(("norm_act_backward_sums", "norm_backward_data"))


def read_profile(path):
    """The operations of a step, the seconds outside of them, and the images of a step."""
    try:
        with open(path) as f:
            profile = json.load(f)
        rows = profile["operations"]
        batch = next(int(r["shape"].split("x")[0]) for r in rows if r["operation"] == "gather")
    except (ValueError, KeyError, StopIteration):
        raise SystemExit(f"{path}: no profile.json of a run with --profile") from None
    operations = []
    for r in rows:
        times = max(1, round(r["calls"]))
        share = r["calls"] / times  # of the steps that have it, the average lookahead's for example
        operations += [Operation(r["operation"], r["shape"], 1e-3 * r["ms"] / times, r["flop"] * share,
                                 r["bytes"] * share)] * times
    return operations, 1e-3 * (profile["step_ms"] - sum(r["ms"] for r in rows)), batch


# ---- exchanges ----------------------------------------------------------------------------------

def nccl(bytes_, gpus, gather=False):
    """Seconds of an all-reduce of a tensor, or of an all-gather with so many bytes of each rank."""
    if gpus == 1:
        return 0
    groups, members = math.ceil(gpus / GROUP), min(gpus, GROUP)
    rate = NVLINK_GBS if groups == 1 else min(NVLINK_GBS, NETWORK_GBS)
    least = math.inf
    for way in ("ring",) if gather else ("ring", "tree"):
        for p in range(3):
            near = NVLINK[way][p] * (1.8 if groups > 1 and p == 0 else 1)
            far = NETWORK[way][p]
            if way == "ring":
                rounds = 1 if gather else 2
                latency = rounds * ((gpus - groups) * near + (groups - 1) * far)
                moved = rounds * (gpus - 1) * (bytes_ if gather else bytes_ / gpus)
            else:
                latency = 2 * ((members - 1) * near + math.ceil(math.log2(groups)) * far)
                moved = 2 * bytes_
            least = min(least, BASE[way][p] + latency + moved / (rate * SHARE[way][p] * 1e3))
    return least * 1e-6


def read_exchange(path):
    """The ranks and a function like nccl(), from what time_collectives printed."""
    lines = [line.split() for line in open(path)]
    ranks = int(next(f[0] for f in lines if f[1:2] == ["ranks"]))
    rows = [[float(x) for x in f] for f in lines if len(f) == 4 and f[3][0].isdigit()]

    def exchange(bytes_, _, gather=False):
        floats, column = bytes_ / 4, 2 if gather else 1
        known = [(r[0], r[column]) for r in rows if r[column] > 0]
        for (n0, t0), (n1, t1) in zip(known, known[1:]):
            if floats <= n1:
                return max(t0 + (t1 - t0) * (floats - n0) / (n1 - n0), 0) * 1e-6
        return known[-1][1] * floats / known[-1][0] * 1e-6

    return ranks, exchange


# ---- a step -------------------------------------------------------------------------------------

def play(operations, seconds_of, outside, ranks, exchange, sync_norm, hides=True):
    """Seconds of a step, and of those that it waits for gradients and for batch norm."""
    now, link, bucket, norm = 0.0, 0.0, 0, 0.0  # link: when the last exchange ended
    waited = 0.0

    def send(bytes_):
        nonlocal now, link, waited
        link = max(link, now) + exchange(bytes_, ranks)
        if not hides:
            waited, now = waited + link - now, link

    def norm_waits(seconds):
        nonlocal now, link, norm
        link = max(link, now) + seconds
        norm += link - now
        now = link

    for i, o in enumerate(operations):
        if o.update and not (i and operations[i - 1].update):
            if bucket:
                send(4 * bucket)
            waited, now = waited + max(link - now, 0), max(link, now)
        if ranks > 1 and sync_norm and o.name == "norm_act_forward":
            norm_waits(exchange(12 * o.channels(), ranks, gather=True))
        now += seconds_of(o)
        if ranks > 1 and sync_norm and o.sums_norm():
            norm_waits(exchange(8 * o.channels(), ranks))
        if ranks > 1:
            bucket += o.gradient()
            if bucket >= BUCKET:
                send(4 * bucket)
                bucket = 0
    return now + outside, waited, norm


def on_gpu(gpu, scale):
    """Seconds of an operation on a GPU whose share of the batch is `scale` times the profiled one."""
    def seconds(o):
        part = 1 if o.update else scale
        return max(o.flop * part / gpu["flop"], o.bytes * part / gpu["bytes"], gpu["kernel"])
    return seconds


def as_profiled(scale):
    return lambda o: o.seconds * (1 if o.update else scale)


# ---- tables -------------------------------------------------------------------------------------

def here(operations, outside, batch, path, sync_norm):
    ranks, exchange = read_exchange(path)
    # Where every processor computes, an exchange takes one away.
    hides = 2 * ranks <= len(os.sched_getaffinity(0))
    step, waited, norm = play(operations, lambda o: o.seconds, outside, ranks, exchange, sync_norm, hides)
    print(f"{ranks} processes of {batch} images: a step of {1e3 * step:.2f} ms, {ranks * batch / step:.0f} "
          f"images/s, exposed {100 * (waited + norm) / step:.1f}% (gradients {1e3 * waited:.2f} ms, "
          f"batch norm {1e3 * norm:.2f} ms)")


def curve(title, operations, share, sync_norm):
    """A line for each number of GPUs; share(gpus): of the profiled batch, on each."""
    print(f"{title}\n{'GPUs':>6} {'images':>8} {'step ms':>9} {'compute':>8} {'norm':>7} {'gradients':>9} "
          f"{'images/s':>12} {'efficiency':>10}")
    alone = None
    for gpus in (1, 2, 4, 8, 16, 64, 256, 1024, 4096):
        images, seconds_of = share(gpus)
        if images < 1:
            print(f"{gpus:>6}  less than an image on each")
            break
        step, waited, norm = play(operations, seconds_of, 0, gpus, nccl, sync_norm)
        rate = gpus * images / step
        alone = alone or rate
        print(f"{gpus:>6} {images:>8g} {1e3 * step:>9.3f} {1e3 * (step - waited - norm):>8.3f} {1e3 * norm:>7.3f} "
              f"{1e3 * waited:>9.3f} {rate:>12.0f} {100 * rate / gpus / alone:>9.1f}%")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", help="profile.json of a run's directory")
    parser.add_argument("--gpu", choices=sorted(GPUS) + ["profiled"], default="h200")
    parser.add_argument("--batch", type=int, help="images on each GPU, weak scaling (default: profiled)")
    parser.add_argument("--global-batch", type=int, help="images in all, strong scaling (default: profiled)")
    parser.add_argument("--bn", choices=["sync", "local"], default="sync")
    parser.add_argument("--exchange", help="what time_collectives printed")
    a = parser.parse_args()
    operations, outside, batch = read_profile(a.profile)
    sync_norm = a.bn == "sync"
    if a.exchange:
        here(operations, outside, batch, a.exchange, sync_norm)
        return
    seconds = as_profiled if a.gpu == "profiled" else lambda scale: on_gpu(GPUS[a.gpu], scale)
    parameters = sum(o.gradient() for o in operations)
    print(f"{parameters:,} gradients, {4e-6 * parameters:.2f} MB a step; batch norm {a.bn}\n")
    weak, strong = a.batch or batch, a.global_batch or batch
    curve(f"weak scaling: {weak} images on each", operations,
          lambda gpus: (weak, seconds(weak / batch)), sync_norm)
    curve(f"strong scaling: {strong} images in all", operations,
          lambda gpus: (strong / gpus, seconds(strong / gpus / batch)), sync_norm)


if __name__ == "__main__":
    main()
