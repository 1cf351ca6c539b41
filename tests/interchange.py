"""interchange.py RUN DATA: does PyTorch get the same result from RUN/model.safetensors?
interchange.py RUN DATA FILE: writes other weights to FILE by the Python library.

Loads the weights strictly into tests/torch_models.py, evaluates the test images of the idx or CIFAR
files in DATA, and compares loss and accuracy with RUN/summary.json. With FILE the weights are first
changed, and loss and accuracy are printed instead.
"""
import gzip
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

import torch_models


def test_images(folder):
    if (folder / "test_batch.bin").exists():
        records = np.fromfile(folder / "test_batch.bin", np.uint8).reshape(-1, 3073)
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    h, w = (int.from_bytes(images[i:i + 4], "big") for i in (8, 12))
    return (np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, h, w),
            np.frombuffer(labels, np.uint8, offset=8))


def evaluate(model, meta, data):
    mean, std = (torch.tensor(json.loads(meta[k])).view(1, -1, 1, 1) for k in ("nn.mean", "nn.std"))
    images, labels = test_images(data)
    with torch.no_grad():
        logits = model((torch.tensor(images) / 255 - mean) / std)
    y = torch.tensor(labels.astype(np.int64))
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def save_changed(model, path):
    """As a person would: state_dict() through safetensors.torch, without any of nn.c's metadata."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.5 * p.std(unbiased=False) * torch.randn_like(p))
    save_file(model.state_dict(), path)


def main():
    run, data = (pathlib.Path(p) for p in sys.argv[1:3])
    path = str(run / "model.safetensors")
    model, meta = torch_models.from_file(path), torch_models.metadata(path)
    if len(sys.argv) > 3:
        save_changed(model, sys.argv[3])
        loss, accuracy = evaluate(model, meta, data)
        print(f"{loss:.7f} {accuracy:.4f}")
        return
    loss, accuracy = evaluate(model, meta, data)
    summary = json.loads((run / "summary.json").read_text())
    print(f"PyTorch: loss {loss:.6f}, accuracy {accuracy:.4f}; "
          f"nn.c: {summary['test_loss']:.6f}, {summary['test_accuracy']:.4f}")
    close = abs(loss - summary["test_loss"]) <= 1e-4 * abs(loss)
    sys.exit(0 if close and abs(accuracy - summary["test_accuracy"]) < 1e-6 else 1)


if __name__ == "__main__":
    main()
