"""torch_peer.py NETWORK [--mode eager|channels_last|jit|compile] [--dtype fp32|bf16] [--steps N]

One peer of bench/compare.sh: trains a network of tests/torch_models.py on fixed random data and
prints the median images/s of its steps. Networks and batch sizes:
    mlp-sgd, mlp-adamw   784-512-512-10, batch 128
    simple               two convolutions (16, 32) on 28x28x1, batch 128, SGD
    airbench             the CIFAR network, batch 500, SGD
"""
import argparse
import pathlib
import statistics
import sys
import time

import torch
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
import torch_models

NETWORKS = {
    "mlp-sgd": ("mlp hidden=512,512", (28, 28, 1), 128),
    "mlp-adamw": ("mlp hidden=512,512", (28, 28, 1), 128),
    "simple": ("cnn-simple width=0.5", (28, 28, 1), 128),
    "airbench": ("cnn-airbench width=1", (32, 32, 3), 500),
}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("network", choices=NETWORKS)
    p.add_argument("--mode", default="eager", choices=["eager", "channels_last", "jit", "compile"])
    p.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--threads", type=int, default=2)
    o = p.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(o.threads)
    network, shape, batch = NETWORKS[o.network]
    model = torch_models.build(network, shape, 10).train()
    x = torch.randn(batch, shape[2], shape[0], shape[1])
    y = torch.randint(10, (batch,))
    if o.mode == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    parameters = [q for q in model.parameters() if q.requires_grad]
    if o.network == "mlp-adamw":
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=True)
    else:
        optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, nesterov=True, foreach=True)
    if o.mode == "jit":
        model = torch.jit.trace(model, x)
    if o.mode == "compile":
        model = torch.compile(model)
    times = []
    for _ in range(o.steps):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=o.dtype == "bf16"):
            loss = F.cross_entropy(model(x).float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
    warm = times[len(times) // 4:]
    print(f"{batch / statistics.median(warm):.0f}")


if __name__ == "__main__":
    main()
