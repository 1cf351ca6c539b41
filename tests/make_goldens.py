"""Writes tests/golden/: small data sets, initial weights, and what PyTorch makes of them.

    python3 tests/make_goldens.py        # needs torch, safetensors, numpy

tests/test_golden.sh trains the same steps with nn.c and compares losses and weights. The reference
computes in fp64 from the same fp32 weights. What is compared must not depend on rounding: a pooling
window with two almost equal maxima sends its gradient one way or the other, and further steps
amplify that. So the steps are repeated in fp32 and from weights that differ by 1e-6, and all must
end within a tenth of the test's tolerance. The first seed of the weights is taken with which they
do; if there is none, this program fails: then take other pictures or fewer steps, not a wider
tolerance.
"""
import gzip
import json
import pathlib
import struct
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

import torch_models

OUT = pathlib.Path(__file__).parent / "golden"
BATCH, TRAIN, TEST, CLASSES = 16, 64, 16, 10
LOSS_TOLERANCE = 2e-5  # this and Recipe's are those of tests/test_golden.sh
PERTURBATION, PERTURBED_RUNS, SEEDS = 1e-6, 10, 50


def pictures(n, h, w, c, seed):
    """A few random waves and noise: neighbouring pixels are alike, and no two places of a picture
    are equal, which would tie in max-pooling."""
    r = np.random.default_rng(seed)
    ys, xs = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    images = r.normal(128, 16, (n, h, w, c))
    for _ in range(6):
        fy, fx = r.uniform(-0.5, 0.5, (2, n, 1, 1, 1))
        amplitude, phase = r.uniform(8, 28, (n, 1, 1, c)), r.uniform(0, 2 * np.pi, (n, 1, 1, c))
        images += amplitude * np.sin(fy * ys[..., None] + fx * xs[..., None] + phase)
    images = images.round().clip(0, 255).astype(np.uint8)
    for image in images:
        patches = np.lib.stride_tricks.sliding_window_view(image, (3, 3, c)).reshape(-1, 9 * c)
        if len(np.unique(patches, axis=0)) != len(patches):
            sys.exit("make_goldens.py: a picture has equal patches: take another seed")
    return images


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
    return torch.tensor((x - mean) / std).permute(0, 3, 1, 2).contiguous()


def whitening(x, eps=5e-4):
    """(2p,C,2,2) from the images: largest eigenvalue first, an eigenvector's largest component
    positive."""
    c = x.shape[1]
    patches = F.unfold(x, 2).transpose(1, 2).reshape(-1, c * 4)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    values, vectors = values.flip(0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    filters = (vectors * largest.sign() / (values + eps).sqrt()).T.reshape(-1, c, 2, 2)
    return torch.cat([filters, -filters]).float()


def muon_direction(g, iterations):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.reshape(len(g), -1)
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.reshape(g.shape)


class Recipe:
    """A trainer's settings for one optimizer; learning rates are constant.

    rates: name of a parameter -> (learning rate, weight decay). muon: whether a parameter is
    trained by Muon. images: how many images' losses the gradient sums. tolerance: the test's, of
    an error relative to the movement."""

    def __init__(self, optimizer, rates, steps, tolerance=1e-3, momentum=0.9, smoothing=0.0, images=1,
                 muon=lambda name: False, muon_momentum=0.6, iterations=3, renormalize=True):
        self.__dict__.update(locals())


class Trainer:
    """The update rules of the trainers, written out."""

    def __init__(self, model, recipe):
        self.model, self.recipe = model, recipe
        self.state = {}
        self.t = 0

    @torch.no_grad()
    def update(self):
        self.t += 1
        for name, p in self.model.named_parameters():
            if not p.requires_grad:
                continue
            lr, decay = self.recipe.rates(name)
            if self.recipe.optimizer == "adamw":
                self.adamw(name, p, lr, decay)
            elif self.recipe.optimizer == "muon" and self.recipe.muon(name):
                self.muon(name, p, lr)
            else:
                self.sgd(name, p, lr, decay)

    def adamw(self, name, p, lr, decay):
        m, v = self.state.setdefault(name, (torch.zeros_like(p), torch.zeros_like(p)))
        m.mul_(0.9).add_(p.grad, alpha=0.1)
        v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
        p.mul_(1 - lr * decay)
        mhat, vhat = m / (1 - 0.9 ** self.t), v / (1 - 0.999 ** self.t)
        p.sub_(lr * mhat / (vhat.sqrt() + 1e-8))

    def muon(self, name, p, lr):
        r = self.recipe
        v = self.state.setdefault(name, torch.zeros_like(p))
        v.mul_(r.muon_momentum).add_(p.grad)
        if r.renormalize:
            p.mul_(len(p) ** 0.5 / p.norm())
        p.sub_(lr * muon_direction(p.grad + r.muon_momentum * v, r.iterations))

    def sgd(self, name, p, lr, decay):
        v = self.state.setdefault(name, torch.zeros_like(p))
        g = p.grad + decay * p
        v.mul_(self.recipe.momentum).add_(g)
        p.sub_(lr * (g + self.recipe.momentum * v))


def initial(network, shape, seed):
    torch.manual_seed(seed)
    model = torch_models.build(network, shape, CLASSES)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.bias.data.uniform_(-0.2, 0.2)
            if m.weight.requires_grad:
                m.weight.data.uniform_(0.5, 1.5)
    return model.state_dict()


def train(network, before, x, y, recipe):
    """The losses of the steps and the weights after them, in x's type."""
    n, c, h, w = x.shape
    model = torch_models.build(network, (h, w, c), CLASSES).to(x.dtype)
    model.load_state_dict(before)
    trainer = Trainer(model, recipe)
    losses = []
    for step in range(recipe.steps):
        batch = slice(step * BATCH % n, step * BATCH % n + BATCH)
        model.zero_grad()
        loss = F.cross_entropy(model(x[batch]), y[batch], label_smoothing=recipe.smoothing)
        (loss * recipe.images).backward()
        losses.append(loss.item())
        trainer.update()
    # nn.c does not count batches
    return losses, {key: torch.zeros_like(value) if key.endswith("num_batches_tracked") else value
                    for key, value in model.state_dict().items()}


def perturbed(before, seed):
    """What is trained, each weight off by a normal error of 1e-6 of its size."""
    noise = torch.Generator().manual_seed(seed)
    def off(value):
        error = torch.randn(value.shape, generator=noise, dtype=torch.float64)
        return value.double() * (1 + PERTURBATION * error)
    def fixed(key):
        return key.endswith(("_mean", "_var", "_tracked")) or "norm" in key and key.endswith("weight")
    return {key: value if fixed(key) else off(value) for key, value in before.items()}


def distance(reference, before, other, start):
    """The largest error of a loss, and of a tensor's movement from its start relative to how far it
    moved, as in tests/compare_models.c."""
    losses = max(abs(a - b) for a, b in zip(reference[0], other[0]))
    worst, where = 0.0, "no tensor"
    for key, value in reference[1].items():
        moved = value.double() - before[key].double()
        off = (other[1][key].double() - start[key].double() - moved).norm().item()
        if moved.norm() > 0 and off / moved.norm().item() > worst:
            worst, where = off / moved.norm().item(), key
    return losses, worst, where


def conditioned(network, before, x, y, recipe):
    """The reference, in fp64; None if fp32 or other last digits of the weights change it."""
    reference = train(network, before, x, y, recipe)
    worst = [0.0, 0.0]
    for seed in range(-1, PERTURBED_RUNS):
        start = before if seed < 0 else perturbed(before, seed)
        other = train(network, start, x.float() if seed < 0 else x, y, recipe)
        loss, weight, where = distance(reference, before, other, start)
        worst = [max(worst[0], loss), max(worst[1], weight)]
        if loss > LOSS_TOLERANCE / 10 or weight > recipe.tolerance / 10:
            print(f"  {recipe.optimizer}: rounding moves losses by {loss:.1e}, {where} by {weight:.1e}")
            return None
    print(f"  {recipe.optimizer}: rounding moves losses by {worst[0]:.1e}, weights by {worst[1]:.1e}")
    return reference


def run(network, short, x, y, recipes):
    n, c, h, w = x.shape
    for seed in range(1, SEEDS + 1):
        print(f"{short}, seed {seed}")
        before = initial(network, (h, w, c), seed)
        references = []
        for recipe in recipes:
            references.append(conditioned(network, before, x, y, recipe))
            if references[-1] is None:
                break
        else:
            return save(short, before, recipes, references)
    sys.exit(f"make_goldens.py: {short} depends on rounding with every seed")


def save(short, before, recipes, references):
    save_file(before, OUT / f"{short}.before.safetensors")
    for recipe, (losses, after) in zip(recipes, references):
        name = f"{short}-{recipe.optimizer}"
        save_file({key: value.float() if value.is_floating_point() else value
                   for key, value in after.items()}, OUT / f"{name}.after.safetensors")
        (OUT / f"{name}.losses.json").write_text(json.dumps(losses) + "\n")


def airbench_recipes(factor):
    """train_airbench's, with --lr factor: under sgd and muon decay is 4e-3 / rate, but for filters."""
    def rates(filters):
        def of(name):
            if "conv" in name:
                return filters * factor, 0.0
            lr = (0.67 if name == "head.weight" else 0.053) * factor
            return lr, 4e-3 / lr
        return of
    common = {"steps": 2, "momentum": 0.85, "smoothing": 0.2}
    return [Recipe("sgd", rates(7.5e-4), images=2000, **common),
            Recipe("muon", rates(0.24), images=2000, muon=lambda name: "conv" in name, **common),
            # AdamW's first step is lr * sign(g), also where g is little more than rounding.
            Recipe("adamw", adamw_rates(2e-3 * factor), tolerance=1e-2, **common)]


def adamw_rates(lr):
    return lambda name: (lr, 0.0 if name.endswith("bias") else 0.01)


def cnn_recipes(factor, steps):
    """train_cnn's, with --lr factor: under sgd and muon decay is 5e-5 / rate, but for norms and
    what muon trains."""
    filters = lambda name: "conv" in name or name.endswith("downsample.0.weight")
    norms = lambda name: not filters(name) and not name.startswith("fc.")
    sgd = lambda name: (0.1 * factor, 0.0 if norms(name) else 5e-5 / (0.1 * factor))
    muon = lambda name: (0.05 * factor, 0.0) if filters(name) else sgd(name)
    common = {"steps": steps, "smoothing": 0.1}
    adamw = lambda name: (2e-3 * factor, 0.0 if norms(name) else 0.05)
    return [Recipe("sgd", sgd, **common),
            Recipe("muon", muon, muon=filters, **common),
            Recipe("adamw", adamw, **common)]


def mlp_recipes(last):
    """Without decay but under adamw; `last` is the head's weight, which Muon leaves to sgd."""
    hidden = lambda name: name.endswith("weight") and name != last
    common = {"steps": 4, "smoothing": 0.1}
    return [Recipe("sgd", lambda name: (0.05, 0.0), **common),
            Recipe("muon", lambda name: (0.01 if hidden(name) else 0.05, 0.0), muon=hidden,
                   muon_momentum=0.95, iterations=5, renormalize=False, **common),
            Recipe("adamw", adamw_rates(1e-3), **common)]


def main():
    torch.set_num_threads(1)  # the same sums on every machine
    OUT.mkdir(exist_ok=True)
    labels, test_labels = np.arange(TRAIN) * 7 % CLASSES, np.arange(TEST) % CLASSES
    y = torch.tensor(labels)
    colour = pictures(TRAIN, 32, 32, 3, 1)
    write_cifar(OUT / "colour", colour, labels, pictures(TEST, 32, 32, 3, 2), test_labels)
    grey = pictures(TRAIN, 19, 18, 1, 3)
    write_idx(OUT / "grey", "train", grey, labels)
    write_idx(OUT / "grey", "t10k", pictures(TEST, 19, 18, 1, 4), test_labels)
    x, g = normalised(colour), normalised(grey)
    save_file({"whiten.weight": whitening(x)}, OUT / "colour.whitening.safetensors")
    save_file({"whiten.weight": whitening(g)}, OUT / "grey.whitening.safetensors")
    run("cnn-airbench width=0.125", "airbench", x, y, airbench_recipes(0.5))
    run("cnn-small width=0.125", "cnn", x, y, cnn_recipes(1.0, 2))
    run("cnn-plain width=0.25", "plain", g, y, cnn_recipes(1.0, 3))
    run("mlp hidden=24,16", "mlp", g, y, mlp_recipes("layers.2.weight"))


if __name__ == "__main__":
    main()
