"""Writes tests/golden/: small data sets, initial weights, and what PyTorch makes of them.

    python3 tests/make_goldens.py        # needs torch, safetensors, numpy

tests/test_golden.sh trains the same steps with nn.c and compares losses and weights.
"""
import gzip
import json
import pathlib
import struct

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

import torch_models

OUT = pathlib.Path(__file__).parent / "golden"
BATCH, STEPS, TRAIN, TEST = 16, 4, 64, 16


def pictures(n, h, w, c, seed):
    """Coarse random blocks with a fixed texture: they compress well, neighbouring pixels are alike,
    and max-pooling meets no ties, which two libraries may break differently."""
    r = np.random.default_rng(seed)
    coarse = r.integers(0, 12, (n, (h + 3) // 4, (w + 3) // 4, c)) * 20
    ys, xs, cs = np.meshgrid(np.arange(h), np.arange(w), np.arange(c), indexing="ij")
    texture = (ys * 7 + xs * 3 + ys * xs + cs * 5) % 17
    return (coarse.repeat(4, 1).repeat(4, 2)[:, :h, :w] + texture).astype(np.uint8)


def write_cifar(folder, images, labels, test_images, test_labels):
    folder.mkdir(parents=True, exist_ok=True)
    def records(x, y):
        planes = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return np.concatenate([y[:, None].astype(np.uint8), planes], 1).tobytes()
    for i, part in enumerate(np.array_split(np.arange(len(images)), 5)):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(records(images[part], labels[part]))
    (folder / "test_batch.bin").write_bytes(records(test_images, test_labels))
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)))


def write_idx(folder, split, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    n, h, w, _ = images.shape
    for name, data in ((f"{split}-images-idx3-ubyte", struct.pack(">4I", 0x803, n, h, w) + images.tobytes()),
                       (f"{split}-labels-idx1-ubyte", struct.pack(">2I", 0x801, n) + labels.astype(np.uint8).tobytes())):
        (folder / (name + ".gz")).write_bytes(gzip.compress(data, 9, mtime=0))


def normalised(images):
    x = images.astype(np.float64) / 255
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
    return torch.tensor((x - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()


def whitening(x, eps=5e-4):
    """(2p,C,2,2) from the images: largest eigenvalue first, an eigenvector's largest component
    positive."""
    c = x.shape[1]
    patches = F.unfold(x.double(), 2).transpose(1, 2).reshape(-1, c * 4)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    values, vectors = values.flip(0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    filters = (vectors * largest.sign() / (values + eps).sqrt()).T.reshape(-1, c, 2, 2)
    return torch.cat([filters, -filters]).float()


def muon_direction(g, iterations=3, abc=(3.4445, -4.7750, 2.0315)):
    a, b, c = abc
    x = g.reshape(len(g), -1).double()
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.reshape(g.shape).float()


class Trainer:
    """The update rules of the trainers, written out; constant learning rates."""

    def __init__(self, model, optimizer, groups):
        self.model, self.optimizer, self.groups = model, optimizer, groups
        self.state = {}
        self.t = 0

    @torch.no_grad()
    def update(self):
        self.t += 1
        for name, p in self.model.named_parameters():
            if not p.requires_grad:
                continue
            lr, decay = self.groups(name)
            if self.optimizer == "adamw":
                m, v = self.state.setdefault(name, (torch.zeros_like(p), torch.zeros_like(p)))
                m.mul_(0.9).add_(p.grad, alpha=0.1)
                v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                p.mul_(1 - lr * decay)
                mhat, vhat = m / (1 - 0.9 ** self.t), v / (1 - 0.999 ** self.t)
                p.sub_(lr * mhat / (vhat.sqrt() + 1e-8))
                continue
            v = self.state.setdefault(name, torch.zeros_like(p))
            if self.optimizer == "muon" and p.dim() == 4:
                v.mul_(0.6).add_(p.grad)
                p.mul_(len(p) ** 0.5 / p.norm())
                p.sub_(lr * muon_direction(p.grad + 0.6 * v))
            else:
                g = p.grad + decay * p
                v.mul_(0.85).add_(g)
                p.sub_(lr * (g + 0.85 * v))


def run(name, network, x, y, optimizer, groups, smoothing, grad_scale):
    torch.manual_seed(1)
    n, c, h, w = x.shape
    model = torch_models.build(network, (h, w, c), 10)
    for m in model.modules():
        if isinstance(m, torch_models.Norm):
            m.bias.data.uniform_(-0.2, 0.2)
    save_file(model.state_dict(), OUT / f"{name}.before.safetensors")
    trainer = Trainer(model, optimizer, groups)
    losses = []
    for step in range(STEPS):
        at = step * BATCH % n
        model.zero_grad()
        loss = F.cross_entropy(model(x[at:at + BATCH]), y[at:at + BATCH],
                               label_smoothing=smoothing, reduction="sum")
        (loss * grad_scale).backward()
        losses.append(loss.item() / BATCH)
        trainer.update()
    state = model.state_dict()
    for key in state:  # nn.c does not count batches
        if key.endswith("num_batches_tracked"):
            state[key].zero_()
    save_file(state, OUT / f"{name}.after.safetensors")
    (OUT / f"{name}.losses.json").write_text(json.dumps(losses) + "\n")
    print(name, losses)


def recipe(factor):
    """train_cnn's groups under sgd and muon: rates, and decay 4e-3 / rate but for the filters."""
    def groups(name):
        if "conv" in name:
            return 7.5e-4 * factor, 0.0
        lr = (0.67 if name == "head.weight" else 0.053) * factor
        return lr, 4e-3 / lr
    return groups


def muon_recipe(factor):
    def groups(name):
        lr, decay = recipe(factor)(name)
        return (0.24 * factor if "conv" in name else lr), decay
    return groups


def main():
    OUT.mkdir(exist_ok=True)
    labels, test_labels = np.arange(TRAIN) * 7 % 10, np.arange(TEST) % 10
    y = torch.tensor(labels)
    colour = pictures(TRAIN, 32, 32, 3, 1)
    write_cifar(OUT / "colour", colour, labels, pictures(TEST, 32, 32, 3, 2), test_labels)
    grey = pictures(TRAIN, 19, 18, 1, 3)
    write_idx(OUT / "grey", "train", grey, labels)
    write_idx(OUT / "grey", "t10k", pictures(TEST, 19, 18, 1, 4), test_labels)
    x, g = normalised(colour), normalised(grey)
    net = "cnn-airbench width=0.125"
    save_file({"whiten.weight": whitening(x)}, OUT / "colour.whitening.safetensors")
    save_file({"whiten.weight": whitening(g)}, OUT / "grey.whitening.safetensors")
    run("airbench-sgd", net, x, y, "sgd", recipe(0.5), 0.2, 2000 / BATCH)
    run("airbench-muon", net, x, y, "muon", muon_recipe(0.5), 0.2, 2000 / BATCH)
    run("simple-adamw", "cnn-simple width=0.25", g, y, "adamw", lambda name: (2e-3, 0.0 if name.endswith("bias") else 0.01), 0.0, 1 / BATCH)
    mlp = lambda name: (1e-3, 0.0 if name.endswith("bias") else 0.01)
    run("mlp-adamw", "mlp hidden=24,16", g, y, "adamw", mlp, 0.1, 1 / BATCH)


if __name__ == "__main__":
    main()
