"""torch_peer.py NETWORK [--mode MODE] [--threads N] [--turn SECONDS] [--steps LEAST]
             [--device cpu|cuda] [--batch N]

One peer of bench/compare.py and bench/gpu/run.sh: PyTorch training a network of tests/torch_models.py on one random
batch that is already in memory. It prints "first" after the first step and "ready" when it is warm;
then, for each line read, it trains for a turn and prints the seconds of each step as a JSON list.
At the end of the input it prints the most memory it has held, in bytes.

Networks, with the trainers' batch sizes, losses and optimizers:
    mlp-sgd, mlp-adamw   784-512-512-10, batch 128
    plain                train_cnn on 28x28x1: four convolutions with batch norm, batch 128, SGD
    airbench             the CIFAR network, batch 500, SGD
    airbench-muon        the same with the recipe's optimizers (bench/gpu/recipe.py)

MODE is a list joined by "+", of
    eager                nothing more (its place in a list of nothing else)
    channels_last        NHWC weights and input
    jit                  torch.jit.trace
    compile              torch.compile of forward, loss and backward
    max_autotune         compile, with its search for the best kernels
    compiled_update      torch.compile of the optimizer's step as well
    foreach              the optimizer's loop over lists of tensors; without: its fused kernel
    autocast             forward and loss in bf16, where autocast thinks it safe
    bf16                 weights, gradients and optimizer state in bf16 as well: no fp32 masters
    graph                cuda: the whole step as one CUDA graph

On cuda a step's seconds are the mean of 20, as the host runs ahead of the device.
"""
import argparse
import json
import pathlib
import resource
import sys
import time

import torch
from torch.nn import functional as F

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent / "gpu")]
import recipe
import torch_models

NETWORKS = {  # network, input, batch, label smoothing
    "mlp-sgd": ("mlp hidden=512,512", (28, 28, 1), 128, 0.0),
    "mlp-adamw": ("mlp hidden=512,512", (28, 28, 1), 128, 0.0),
    "plain": ("cnn-plain width=1", (28, 28, 1), 128, 0.1),
    "airbench": ("cnn-airbench width=1", (32, 32, 3), 500, 0.2),
    "airbench-muon": ("cnn-airbench width=1", (32, 32, 3), 500, 0.2),
}
MODES = {"eager", "channels_last", "jit", "compile", "max_autotune", "compiled_update", "foreach",
         "autocast", "bf16", "graph"}
WARM_SECONDS, WARM_STEPS = 0.5, 2


class Optimizers:
    def __init__(self, parts):
        self.parts = parts

    def zero_grad(self, set_to_none):
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self):
        for part in self.parts:
            part.step()


def optimizer_of(network, model, mode):
    if network == "airbench-muon":
        return Optimizers(recipe.optimizers(model))
    parameters = [p for p in model.parameters() if p.requires_grad]
    how = {"foreach": True} if "foreach" in mode else {"fused": True}
    if network == "mlp-adamw":
        return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, capturable="graph" in mode, **how)
    return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, nesterov=True, **how)


def captured(step):
    """The step as a CUDA graph, after steps on a stream of their own, as capturing wants it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def make_step(name, mode, device="cpu", batch=0):
    """The network's training step as a function without arguments."""
    network, (h, w, c), own_batch, smoothing = NETWORKS[name]
    batch = batch or own_batch
    model = torch_models.build(network, (h, w, c), 10).train().to(device)
    x = torch.randn(batch, c, h, w, device=device)
    y = torch.randint(10, (batch,), device=device)
    if "bf16" in mode:
        model, x = model.bfloat16(), x.bfloat16()
    if "channels_last" in mode:
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    optimizer = optimizer_of(name, model, mode)
    update = torch.compile(optimizer.step) if "compiled_update" in mode else optimizer.step
    if "jit" in mode:
        model = torch.jit.trace(model, x)

    def loss_of(x, y):
        with torch.autocast(device, torch.bfloat16, enabled="autocast" in mode):
            logits = model(x)
        return F.cross_entropy(logits.float(), y, label_smoothing=smoothing)

    if "max_autotune" in mode:
        loss_of = torch.compile(loss_of, mode="max-autotune")
    elif "compile" in mode:
        loss_of = torch.compile(loss_of)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(x, y).backward()
        update()

    return captured(step) if "graph" in mode else step


def twenty(step):
    for _ in range(20):
        step()
    torch.cuda.synchronize()


def timed(step, seconds, least, device):
    """The seconds of each step, for `seconds` in all and at least `least` steps."""
    if device == "cuda":
        return [t / 20 for t in timed(lambda: twenty(step), seconds, least, "cpu")]
    times = []
    while sum(times) < seconds or len(times) < least:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return times


def main():
    p = argparse.ArgumentParser()
    p.add_argument("network", choices=NETWORKS)
    p.add_argument("--mode", default="eager")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--turn", type=float, default=1.0)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--batch", type=int, default=0, help="0: the network's own")
    o = p.parse_args()
    mode = set(o.mode.split("+"))
    if mode - MODES:
        p.error(f"unknown --mode {mode - MODES}")
    torch.set_flush_denormal(True)
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    step = make_step(o.network, mode, o.device, o.batch)
    step()
    print("first", flush=True)
    timed(step, WARM_SECONDS, WARM_STEPS, o.device)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(step, o.turn, o.steps, o.device)), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main()
