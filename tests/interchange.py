"""interchange.py RUN DATA: does PyTorch get the same result from RUN/model.safetensors?
interchange.py RUN DATA --predict PROGRAM: does it see the same in each picture?
interchange.py RUN DATA FILE: writes other weights to FILE by the Python library.

Loads the weights strictly into tests/torch_models.py, evaluates the test images of the idx or CIFAR
files in DATA, and compares loss and accuracy with RUN/summary.json; or each picture's class and
probability with what `PROGRAM RUN/model.safetensors PICTURES --json` says: the class may differ
only where PyTorch's two best logits lie within 1e-4. With FILE the weights are first changed, and
loss and accuracy are printed instead.
"""
import gzip
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

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


def logits_of(model, meta, images):
    mean, std = (torch.tensor(json.loads(meta[k])).view(1, -1, 1, 1) for k in ("nn.mean", "nn.std"))
    with torch.no_grad():
        return model((torch.tensor(images) / 255 - mean) / std)


def evaluate(model, meta, data):
    images, labels = test_images(data)
    logits = logits_of(model, meta, images)
    y = torch.tensor(labels.astype(np.int64))
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def write_bmp(path, image):
    """(c,h,w), red first, as 24 bits a pixel: lowest row first, blue first, whole 4 bytes a row."""
    _, h, w = image.shape
    rows = np.zeros((h, (3 * w + 3) // 4 * 4), np.uint8)
    pixels = np.broadcast_to(image, (3, h, w))[::-1, ::-1].transpose(1, 2, 0)
    rows[:, :3 * w] = pixels.reshape(h, -1)
    header = struct.pack("<2sIHHI", b"BM", 54 + rows.size, 0, 0, 54)
    path.write_bytes(header + struct.pack("<IiiHHIIiiII", 40, w, h, 1, 24, 0, rows.size, 0, 0, 0, 0)
                     + rows.tobytes())


def differences(model, meta, data, path, program):
    """Pictures in which PROGRAM sees something else than PyTorch."""
    images, _ = test_images(data)
    logits = logits_of(model, meta, images)
    names = json.loads(meta["nn.classes"])
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            write_bmp(pathlib.Path(folder) / f"{i:05d}.bmp", image)
        lines = subprocess.run([program, path, folder, "--json"], check=True, capture_output=True)
    answers = [json.loads(line) for line in lines.stdout.splitlines()]
    assert len(answers) == len(images)
    wrong = 0
    for answer, row in zip(answers, logits):
        best = row.topk(2)
        probability = row.softmax(0)[names.index(answer["class"])].item()
        same = answer["class"] == names[best.indices[0]] or best.values[0] - best.values[1] <= 1e-4
        wrong += not same or abs(probability - answer["probability"]) > 1e-4
    print(f"{len(images)} pictures, {wrong} seen differently by PyTorch")
    return wrong


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
    if sys.argv[3:4] == ["--predict"]:
        sys.exit(differences(model, meta, data, path, sys.argv[4]) > 0)
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
