"""layers.py [--device cuda|cpu] [--batch N]: the CIFAR network's convolutions in PyTorch, which calls
cuDNN with its search for the fastest algorithm, and as bare matrix products of the same sizes, for
which it calls cuBLAS; bf16, channels_last. Lines of row, program and seconds for table.py.
"""
import argparse
import time

import torch
from table import LAYERS


def seconds_of(call, device, least):
    """Mean of a call among as many as take `least` seconds, without waiting between them."""
    count = 1
    while True:
        began = time.perf_counter()
        for _ in range(count):
            call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        if seconds > least or count > 1e6:
            return seconds / count
        count = int(count * min(1000, 1.5 * least / max(seconds, 1e-6))) + 1


def calls(layer, batch, device):
    """Of one layer: (row, program, function)."""
    dtype = torch.bfloat16
    x = torch.randn(batch, layer.cin, layer.h, layer.h, device=device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)
    w = torch.randn(layer.cout, layer.cin, 3, 3, device=device, dtype=dtype)
    w = w.to(memory_format=torch.channels_last)
    y = torch.nn.functional.conv2d(x, w, padding=1)
    pixels, k = batch * layer.h * layer.h, 9 * layer.cin
    a = torch.randn(pixels, k, device=device, dtype=dtype)
    b = torch.randn(k, layer.cout, device=device, dtype=dtype)
    dy = torch.randn(pixels, layer.cout, device=device, dtype=dtype)

    def backward(mask):
        return lambda: torch.ops.aten.convolution_backward(
            y, x, w, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, mask)

    yield "forward", "cuDNN", lambda: torch.nn.functional.conv2d(x, w, padding=1)
    yield "data", "cuDNN", backward((True, False, False))
    yield "weight", "cuDNN", backward((False, True, False))
    yield "forward", "matmul", lambda: a @ b
    yield "data", "matmul", lambda: dy @ b.T
    yield "weight", "matmul", lambda: a.T @ dy


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="cuda")
    p.add_argument("--batch", type=int, default=1536)
    p.add_argument("--least", type=float, default=0.1, help="seconds of a timing")
    o = p.parse_args()
    torch.backends.cudnn.benchmark = True
    for layer in LAYERS:
        for operation, program, call in calls(layer, o.batch, o.device):
            call()
            seconds = seconds_of(call, o.device, o.least)
            print(f"{operation} {layer.name}\t{program}\t{seconds:.4g}", flush=True)


if __name__ == "__main__":
    main()
