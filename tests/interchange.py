"""interchange.py RUN DATA: does PyTorch get the same result from RUN/model.safetensors?

Loads the weights strictly into tests/torch_models.py, evaluates the test images of the idx or CIFAR
files in DATA, and compares loss and accuracy with RUN/summary.json.
"""
import gzip
import json
import pathlib
import sys

import numpy as np
import torch
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


def main():
    run, data = (pathlib.Path(p) for p in sys.argv[1:3])
    path = str(run / "model.safetensors")
    model, meta = torch_models.from_file(path), torch_models.metadata(path)
    mean, std = (torch.tensor(json.loads(meta[k])).view(1, -1, 1, 1) for k in ("nn.mean", "nn.std"))
    images, labels = test_images(data)
    with torch.no_grad():
        logits = model((torch.tensor(images) / 255 - mean) / std)
    y = torch.tensor(labels.astype(np.int64))
    loss = F.cross_entropy(logits, y).item()
    accuracy = (logits.argmax(1) == y).float().mean().item()
    summary = json.loads((run / "summary.json").read_text())
    print(f"PyTorch: loss {loss:.6f}, accuracy {accuracy:.4f}; "
          f"nn.c: {summary['test_loss']:.6f}, {summary['test_accuracy']:.4f}")
    close = abs(loss - summary["test_loss"]) <= 1e-4 * abs(loss)
    sys.exit(0 if close and abs(accuracy - summary["test_accuracy"]) < 1e-6 else 1)


if __name__ == "__main__":
    main()
