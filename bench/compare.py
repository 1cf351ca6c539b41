#!/usr/bin/env python3
"""nn.c against PyTorch on this machine: what they train in a second, and the ratio.

    bench/compare.py                 everything: see docs/performance.md for what it prints
    bench/compare.py --scout         only find PyTorch's fastest mode for each row, and note it
    bench/compare.py --quick         two threads, few rounds
    bench/compare.py --rows C,C-bf16 --threads 2

PYTHON names a Python with torch (default build/bench-venv/bin/python, made by bench/setup.sh),
MNIST a directory with MNIST's shards for row B (without: noise of the same shape).

Both sides have the same number of processors and threads. They take turns, ours in a process of its
own each time, the peers in one that stays warm and waits. A turn in which other programs used the
processors is repeated. Ours counts loading, augmentation and evaluation of the loss; the peers train
on one batch that is in memory.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PYTHON = os.environ.get("PYTHON", str(BUILD / "bench-venv" / "bin" / "python"))
SCOUTED = BUILD / "compare-modes.json"
BUSY = 0.05  # processors that others may use during a turn
TRIES = 3

# The peer's modes to try. The first list is eager ones: the fastest of it is "tuned eager".
MLP = (["eager", "foreach"], ["jit", "compile", "compile+compiled_update", "max_autotune"])
CNN = (["eager", "channels_last", "channels_last+foreach"],
       ["jit+channels_last", "compile", "compile+channels_last"])
CNN_BF16 = (["autocast", "autocast+channels_last"],
            ["autocast+compile", "autocast+compile+channels_last", "bf16+channels_last",
             "bf16+compile+channels_last"])
# Environments to try with the fastest mode; tuned eager gets the same one.
ENVIRONMENTS = ["tcmalloc", "jemalloc", "iomp", "bind"]


class Row:
    def __init__(self, name, title, peer, batch, modes, command, rounds, turn, scout=None):
        self.name, self.title, self.peer, self.batch = name, title, peer, batch
        self.modes, self.command, self.rounds, self.turn = modes, command, rounds, turn
        self.scout = scout or name  # the row whose modes serve this one


def rows(mnist):
    sgd = ["--optimizer", "sgd"]
    cifar = ["./train_airbench", "--width", "1", "--batch-size", "500", "--steps", "6", "--tta", "0"] + sgd
    small = ["./train_cnn", "--batch-size", "128", "--data", mnist, "--steps", "400"]
    return [
        Row("A", "A: MLP, SGD", "mlp-sgd", 128, MLP, ["./train_mlp", "--steps", "500"] + sgd, 7, 1.0),
        Row("A-adamw", "A: MLP, AdamW", "mlp-adamw", 128, MLP, ["./train_mlp", "--steps", "500"], 7, 1.0,
            scout="A"),
        Row("B", "B: MNIST, SGD", "plain", 128, CNN, small + sgd, 7, 1.0),
        Row("C", "C: CIFAR network", "airbench", 500, CNN, cifar + ["--dtype", "fp32"], 5, 2.0),
        Row("C-bf16", "C: in bf16", "airbench", 500, CNN_BF16, cifar + ["--dtype", "bf16"], 5, 2.0),
    ]


# ---- the machine --------------------------------------------------------------------------------

def processors(count):
    """`count` processors, each a core of its own while there are enough."""
    mine, cores = sorted(os.sched_getaffinity(0)), {}
    for cpu in mine:
        topology = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            core = tuple((topology / f).read_text() for f in ("physical_package_id", "core_id"))
        except OSError:
            core = cpu
        cores.setdefault(core, cpu)
    first = list(cores.values())
    return (first + [c for c in mine if c not in first])[:count]


def pinned(threads):
    return ["taskset", "-c", ",".join(map(str, processors(threads)))]


def library(name):
    listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True,
                             check=False).stdout
    found = re.search(rf"\b{name}\S* .*=> (\S+)", listing)
    if found:
        return found.group(1)
    beside = list(pathlib.Path(PYTHON).parent.parent.glob(f"lib/{name}*"))
    return str(beside[0]) if beside else None


LIBRARIES = {"tcmalloc": "libtcmalloc_minimal.so", "jemalloc": "libjemalloc.so", "iomp": "libiomp5.so"}


def environment(threads, extra=""):
    """Of both sides; `extra` is "" or of ENVIRONMENTS. None: this system lacks the library."""
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), TORCHINDUCTOR_CACHE_DIR=str(BUILD / "inductor"))
    for trap in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
                 "LD_PRELOAD"):
        env.pop(trap, None)
    # Without these glibc gives big buffers back to the system at each step.
    env.update(MALLOC_MMAP_THRESHOLD_="4000000000", MALLOC_TRIM_THRESHOLD_="4000000000")
    if extra == "bind":
        env["OMP_PROC_BIND"] = "close"
    elif extra:
        env["LD_PRELOAD"] = library(LIBRARIES[extra]) or ""
        if not env["LD_PRELOAD"]:
            return None
    if extra == "iomp":
        env.update(KMP_AFFINITY="granularity=fine,compact,1,0", KMP_BLOCKTIME="1")
    return env


def busy_seconds():
    """Processor time that everything on this machine has used, also what a hypervisor took away."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[i]) for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_seconds():
    t = os.times()
    return t.children_user + t.children_system


def undisturbed(turn, own_seconds):
    """Repeats turn() until others let it run. Returns its result and whether they did."""
    for _ in range(TRIES):
        began, busy, own = time.monotonic(), busy_seconds(), own_seconds()
        result = turn()
        others = (busy_seconds() - busy - (own_seconds() - own)) / (time.monotonic() - began)
        if others < BUSY:
            return result, True
        time.sleep(0.5)
    return result, False


# ---- the two sides ------------------------------------------------------------------------------

def images_per_s(batch, seconds, of=statistics.median):
    """The median over chunks of steps that take 50 ms: what happens every few steps counts."""
    chunk = max(1, round(0.05 / statistics.median(seconds)))
    chunks = [seconds[i:i + chunk] for i in range(0, len(seconds) - chunk + 1, chunk)]
    return batch * chunk / of(sum(c) for c in chunks)


class Ours:
    def __init__(self, row, threads, work):
        self.row, self.threads, self.out = row, threads, work / "run"
        self.memory = 0

    def run(self):
        shutil.rmtree(self.out, ignore_errors=True)
        command = pinned(self.threads) + self.row.command
        command += ["--threads", str(self.threads), "--quiet", "--out", str(self.out)]
        done = subprocess.run(command, cwd=ROOT, env=environment(self.threads), capture_output=True,
                              text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        log = [json.loads(x) for x in (self.out / "log.jsonl").read_text().splitlines()]
        seconds = [x["step_ms"] / 1e3 for x in log if "step_ms" in x]
        self.memory = json.loads((self.out / "summary.json").read_text())["peak_memory_bytes"]
        return images_per_s(self.row.batch, seconds[max(1, len(seconds) // 4):])

    def turn(self):
        return undisturbed(self.run, children_seconds)

    def end(self):
        return self.memory


class Peer:
    def __init__(self, row, threads, mode):
        self.row = row
        how, _, extra = mode.partition("@")
        env = environment(threads, extra)
        if env is None:
            raise RuntimeError(f"no {LIBRARIES[extra]}")
        # Turns of the same length, but two steps at least.
        command = pinned(threads) + [
            PYTHON, str(ROOT / "bench" / "torch_peer.py"), row.peer, "--mode", how, "--threads",
            str(threads), "--turn", str(row.turn), "--steps", "2"]
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.first_seconds = 0

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"status {self.process.wait()}")
        return line.strip()

    def wait_ready(self):
        self.read()
        self.first_seconds = time.monotonic() - self.began
        self.read()

    def run(self, of=statistics.median):
        self.process.stdin.write("turn\n")
        self.process.stdin.flush()
        return images_per_s(self.row.batch, json.loads(self.read()), of)

    def turn(self):
        return undisturbed(self.run, lambda: process_seconds(self.process.pid))

    def end(self):
        self.process.stdin.close()
        memory = int(self.read())
        self.process.wait()
        return memory


# ---- finding the fastest peers ------------------------------------------------------------------

def peer_speed(row, threads, mode):
    """Of the fastest moment of two turns, which others disturb least; 0 if the mode fails here."""
    peer = None
    try:
        peer = Peer(row, threads, mode)
        peer.wait_ready()
        best = max(peer.run(of=min) for _ in range(2))
        peer.end()
        print(f"    {mode:<40} {best:9.0f} images/s", flush=True)
        return best
    except RuntimeError as e:
        print(f"    {mode:<40} {e}")
        return 0
    finally:
        if peer and peer.process.poll() is None:
            peer.process.kill()
            peer.process.wait()


def scout(row, threads):
    """The fastest eager mode and the fastest of all, both in the environment best for the latter."""
    print(f"  scouting PyTorch's modes for {row.title}, {threads} threads", flush=True)
    eager, other = row.modes
    speed = {m: peer_speed(row, threads, m) for m in eager + other}
    if not any(speed[m] for m in eager):
        raise RuntimeError(f"{PYTHON} cannot train it")
    best = max(speed, key=speed.get)
    in_environment = {e: peer_speed(row, threads, f"{best}@{e}") for e in ENVIRONMENTS}
    in_environment[""] = speed[best]
    extra = max(in_environment, key=in_environment.get)
    suffix = f"@{extra}" if extra else ""
    return {"eager": max(eager, key=speed.get) + suffix, "best": best + suffix}


def scouted(row, machine, again=False):
    """Noted from an earlier run, or found now; with all processors, for every number of threads."""
    known = json.loads(SCOUTED.read_text()) if SCOUTED.exists() else {}
    key = f"{machine} {row.scout}"
    if again or key not in known:
        known[key] = scout(row, len(processors(2)))
        SCOUTED.write_text(json.dumps(known, indent=1))
    return known[key]


# ---- the table ----------------------------------------------------------------------------------

def spread(values, form):
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def compare(row, threads, machine, rounds, work, say):
    """Prints the rows of one network: ours, tuned eager and, where it is another one, the best."""
    sides = {"nn.c": Ours(row, threads, work)}
    sides["nn.c"].run()  # refused options end here
    modes = scouted(row, machine)
    for mode in dict.fromkeys([modes["eager"], modes["best"]]):
        sides[mode] = Peer(row, threads, mode)
        sides[mode].wait_ready()
    speed, disturbed = {name: [] for name in sides}, dict.fromkeys(sides, 0)
    for _ in range(rounds):
        for name, side in sides.items():
            result, quiet = side.turn()
            speed[name].append(result)
            disturbed[name] += not quiet
    ours = speed["nn.c"]
    for name, side in sides.items():
        ratio = spread([a / b for a, b in zip(ours, speed[name], strict=True)], ".2f")
        tags = [tag for tag in modes if modes[tag] == name]
        title = f"PyTorch {' and '.join('tuned eager' if t == 'eager' else t for t in tags)}: {name}"
        memory = side.end() / 1e6
        say(f"{row.title:<18} {threads}  {title if tags else name:<60} {spread(speed[name], '.0f'):>24}"
            f"  {ratio if tags else '':<17} {max(ours) / max(speed[name]):6.2f} {memory:6.0f}"
            f"{f'  {disturbed[name]} turns disturbed' if disturbed[name] else ''}")


def header(say):
    say(f"{'network':<18} {'threads':<2} {'program':<55} {'images/s (min-max)':>25}"
        f"  {'ratio (min-max)':<17} {'best':>6} {'MB':>6}")


# ---- start to the first step --------------------------------------------------------------------

def first_step(command, work, cold):
    """Seconds from the process's start to the first line of its log."""
    out = work / "start"
    shutil.rmtree(out, ignore_errors=True)
    if cold:  # the program is read from the disk again
        with open(ROOT / command[0], "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.monotonic()
    process = subprocess.Popen(command + ["--steps", "1", "--quiet", "--out", str(out)], cwd=ROOT,
                               env=environment(len(os.sched_getaffinity(0))), stdout=subprocess.DEVNULL)
    log = out / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.0005)
    seconds = time.monotonic() - began
    process.wait()
    return seconds


def import_torch():
    began = time.monotonic()
    subprocess.run([PYTHON, "-c", "import torch"], check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def starts(all_rows, work, say):
    say("start to the first step, embedded data, seconds: median (min-max)")
    for command in (["./train_mlp"], ["./train_cnn"], ["./train_airbench"]):
        for cold in (True, False):
            seconds = [first_step(command, work, cold) for _ in range(10)]
            name = f"{' '.join(command)}, {'read from the disk' if cold else 'warm'}"
            say(f"  {name:<58} {spread(seconds, '.3f')}")
    say(f"  {'PyTorch: import torch':<58} {spread([import_torch() for _ in range(3)], '.2f')}")
    peer = Peer(all_rows[0], len(processors(2)), "eager")
    peer.wait_ready()
    peer.end()
    say(f"  {'PyTorch: start to the first step of the MLP, eager':<58} {peer.first_seconds:.2f}")


# ---- main ---------------------------------------------------------------------------------------

def noise_like_mnist(work):
    """Shards of random images with MNIST's shape: speed does not depend on what they show."""
    source, out = work / "idx", work / "noise"
    source.mkdir()
    for name, n in (("train", 20000), ("t10k", 2000)):
        (source / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, n, 28, 28) + os.urandom(n * 28 * 28))
        (source / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, n) + bytes(i % 10 for i in range(n)))
    subprocess.run(["./data/prepare", "idx", str(source), "--out", str(out)], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    return str(out)


def describe():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()).group(1)
    torch = subprocess.run([PYTHON, "-c", "import torch; print(torch.__version__)"], text=True,
                           capture_output=True, check=False).stdout.strip()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                            capture_output=True, check=False).stdout.strip()
    return cpu, torch, commit


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", default="A,A-adamw,B,C,C-bf16", help="of: %(default)s")
    p.add_argument("--threads", default="2,1", help="numbers of threads, default %(default)s")
    p.add_argument("--rounds", type=int, default=0, help="turns of each program; 0: 7, of C 5")
    p.add_argument("--quick", action="store_true", help="two threads, two rounds, no start times")
    p.add_argument("--scout", action="store_true", help="look for the fastest modes again, and leave")
    p.add_argument("--no-start", action="store_true", help="leave out the start times")
    p.add_argument("--name", default="compare", help="append to bench/results/DATE-NAME.txt")
    return p.parse_args()


def main():
    o = arguments()
    cpu, torch, commit = describe()
    if not torch:
        sys.exit(f"compare.py: {PYTHON} has no torch: run bench/setup.sh, or set PYTHON")
    subprocess.run(["make", "-s"], cwd=ROOT, check=True)
    results = ROOT / "bench" / "results" / f"{datetime.date.today()}-{o.name}.txt"
    work = pathlib.Path(tempfile.mkdtemp())
    threads = [2] if o.quick else [int(t) for t in o.threads.split(",")]
    all_rows = rows(os.environ.get("MNIST") or noise_like_mnist(work))
    chosen = [r for r in all_rows if r.name in o.rows.split(",")]
    machine = f"{cpu} {torch}"

    def say(line):
        print(line, flush=True)
        with results.open("a") as f:
            f.write(line.rstrip() + "\n")

    try:
        if o.scout:
            for row in chosen:
                if row.scout == row.name:
                    print(f"  {scouted(row, machine, again=True)}")
            return
        say(f"# {datetime.datetime.now():%Y-%m-%d %H:%M} {' '.join(sys.argv)}")
        say(f"# {cpu}, {len(os.sched_getaffinity(0))} processors, PyTorch {torch}, commit {commit}")
        header(say)
        for row in chosen:
            for t in threads:
                rounds = 2 if o.quick else o.rounds or row.rounds
                try:
                    compare(row, t, machine, rounds, work, say)
                except RuntimeError as e:
                    say(f"{row.title:<18} {t}  skipped: {e}")
        if not o.quick and not o.no_start:
            starts(all_rows, work, say)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
