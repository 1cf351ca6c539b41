"""recipe.py --data DIR [--seeds N] [--mode eager|compile] [--device cuda|cpu] ...

The peer of `./train_airbench --speedrun`: recipe B of the CIFAR network (train_airbench.c) in PyTorch, from the
same shards, in fp16 on a GPU as its authors have it. The first run is the cold start, timed from the
start of the process; the others are timed as docs/runs.md says of the warm clock, with the data on
the device. Prints a JSON object: "cold" and "runs" with seed, test_accuracy, seconds and losses (an
image's in the mean, of each step), and "cold_seconds".
"""
import argparse
import json
import os
import pathlib
import struct
import sys
import time

import torch
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tests"))
import torch_models

WHITENING_IMAGES, WHITENING_EPS, WHITENING_EPOCHS = 5000, 5e-4, 3
BIAS_LR, HEAD_LR, FILTER_LR = 0.053, 0.67, 0.24
MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.85, 4e-3, 0.2
SUMMED = 2000  # images whose losses a gradient sums, whatever the batch: train_airbench.c's


class Muon(torch.optim.Optimizer):
    """Of convolutions: momentum, then three Newton-Schulz iterations towards an orthogonal matrix."""

    def __init__(self, parameters, lr, momentum=0.6):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "v" not in state:
                    state["v"] = torch.zeros_like(p.grad)
                v = state["v"].mul_(group["momentum"]).add_(p.grad)
                g = p.grad.add(v, alpha=group["momentum"])
                p.mul_(len(p) ** 0.5 / p.norm())
                p.add_(orthogonal(g.flatten(1)).view_as(p), alpha=-group["lr"])


def orthogonal(g):
    """The rows are fewer than the columns in every layer."""
    x = g.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(3):
        a = x @ x.T
        b = -4.7750 * a + 2.0315 * a @ a
        x = 3.4445 * x + b @ x
    return x.to(g.dtype)


def filters_of(model):
    return [c.weight for b in (model.block1, model.block2, model.block3) for c in (b.conv1, b.conv2)]


def optimizers(model):
    """Nesterov SGD of the whitening bias, the norms' biases and the head; Muon of the filters."""
    norms = [n.bias for b in (model.block1, model.block2, model.block3) for n in (b.norm1, b.norm2)]
    groups = [{"params": p, "lr": lr, "weight_decay": WEIGHT_DECAY / lr} for p, lr in
              (([model.whiten.bias], BIAS_LR), (norms, BIAS_LR), ([model.head.weight], HEAD_LR))]
    sgd = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True, fused=True)
    return [sgd, Muon(filters_of(model), FILTER_LR)]


# ---- data ---------------------------------------------------------------------------------------

def read_split(directory, split):
    """Images (n,H,W,C) uint8 and labels of a split's shards, whose format is in data/README.md."""
    images, labels = [], []
    for path in sorted(pathlib.Path(directory).glob(f"*-{split}-*.nns")):
        with open(path, "rb") as f:
            header = f.read(256)
            n, = struct.unpack_from("<Q", header, 32)
            shape = (n, *struct.unpack_from("<3I", header, 64))
            for offset, kind, out in ((96, torch.uint8, images), (112, torch.int16, labels)):
                at, size = struct.unpack_from("<2Q", header, offset)
                f.seek(at)
                values = torch.frombuffer(bytearray(f.read(size)), dtype=kind)
                out.append(values.view(shape) if out is images else values.long())
        mean, std = (struct.unpack_from("<3f", header, at) for at in (192, 208))
    return torch.cat(images), torch.cat(labels), mean, std


class Data:
    def __init__(self, directory, device, dtype):
        for split in ("train", "test"):
            x, y, mean, std = read_split(directory, split)
            x = (x.to(device).float() / 255 - torch.tensor(mean, device=device)) \
                / torch.tensor(std, device=device)
            setattr(self, split, (x.to(dtype), y.to(device)))


def pad(x, by):
    """Reflected borders of (n,H,W,C)."""
    return F.pad(x.permute(0, 3, 1, 2), (by,) * 4, mode="reflect").permute(0, 2, 3, 1)


def channels_last(x):
    """(n,H,W,C) as (n,C,H,W)."""
    return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def shifted(padded, size):
    """A crop at a random place of each image, as (n,C,H,W) in channels_last."""
    n, room = len(padded), padded.shape[1] - size + 1
    rows, columns = (torch.randint(room, (n, 1), device=padded.device)
                     + torch.arange(size, device=padded.device) for _ in range(2))
    image = torch.arange(n, device=padded.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


# ---- a run --------------------------------------------------------------------------------------

@torch.no_grad()
def initialise(model, x):
    """Whitening filters from x (n,H,W,C), identities in the filters, a head of deviation 1."""
    patches = F.unfold(x[:WHITENING_IMAGES].permute(0, 3, 1, 2).float(), 2)
    patches = patches.transpose(1, 2).reshape(-1, patches.shape[1])
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + WHITENING_EPS).sqrt()).T.reshape(-1, *model.whiten.weight.shape[1:])
    model.whiten.weight.copy_(torch.cat([filters, -filters]))
    for w in filters_of(model):
        torch.nn.init.dirac_(w[:w.shape[1]])
    model.head.weight.div_(model.head.weight.std())


def new_model(o, shape, dtype):
    model = torch_models.build(f"cnn-airbench width={o.width}", shape, 10).to(o.device)
    model = model.to(dtype=dtype, memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, torch_models.Norm):
            module.float()
    return model


def reset(model, x):
    """The same model for every run: it is compiled once."""
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    initialise(model, x)


def train(o, model, forward, images, labels):
    per_epoch = len(images) // o.batch
    steps = o.steps or o.epochs * per_epoch
    whitening = min(steps, WHITENING_EPOCHS * per_epoch)
    both, losses = optimizers(model), []
    rates = [(g, g["lr"]) for opt in both for g in opt.param_groups]
    flipped = torch.rand(len(images), device=o.device) < 0.5
    once = pad(torch.where(flipped[:, None, None, None], images.flip(2), images), 2)
    model.train()
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            x = shifted(once, images.shape[1])
            x = x.flip(3) if epoch % 2 else x
            order = torch.randperm(len(images), device=o.device)
        for g, lr in rates:
            g["lr"] = lr * (1 - step / steps)
        rates[0][0]["lr"] = rates[0][1] * max(0.0, 1 - step / whitening)
        model.whiten.bias.requires_grad_(step < whitening)
        at = order[place * o.batch:(place + 1) * o.batch]
        logits = forward(x[at].contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels[at], label_smoothing=SMOOTHING, reduction="sum")
        (loss * (SUMMED / o.batch)).backward()
        losses.append(loss.detach() / o.batch)
        for opt in both:
            opt.step()
        model.zero_grad(set_to_none=True)
    return losses


@torch.no_grad()
def accuracy(o, model, forward, images, labels):
    """With mirror images, and two shifts of a pixel at a quarter of the weight each."""
    model.eval()
    correct = 0
    for at in range(0, len(images), o.batch):
        x, size = images[at:at + o.batch], images.shape[1]
        padded = pad(x, 1)
        views = ((0.5, x), (0.25, padded[:, :size, :size]), (0.25, padded[:, 2:, 2:]))
        logits = sum(w / 2 * forward(channels_last(v)).float() for w, view in views
                     for v in (view, view.flip(2)))
        correct += (logits.argmax(1) == labels[at:at + o.batch]).sum()
    return int(correct) / len(images)


def synchronised():
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def run(o, seed, data, model, forward):
    torch.manual_seed(seed)
    began = synchronised()
    reset(model, data.train[0])
    losses = train(o, model, forward, *data.train)
    result = accuracy(o, model, forward, *data.test)
    seconds = synchronised() - began
    return {"seed": seed, "test_accuracy": result, "seconds": seconds,
            "losses": [round(float(x), 6) for x in losses]}


def process_seconds():
    """Since this process was started."""
    started = pathlib.Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--device", default="cuda")
    p.add_argument("--mode", choices=("eager", "compile"), default="eager")
    p.add_argument("--seeds", type=int, default=3, help="warm runs")
    p.add_argument("--seed", type=int, default=1, help="of the cold run and the first warm one")
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--batch", type=int, default=2000)
    p.add_argument("--width", type=float, default=1)
    o = p.parse_args()
    dtype = torch.float16 if o.device == "cuda" else torch.float32
    torch.backends.cudnn.benchmark = True
    data = Data(o.data, o.device, dtype)
    model = new_model(o, data.train[0].shape[1:], dtype)
    forward = torch.compile(model) if o.mode == "compile" else model
    out = {"cold": run(o, o.seed, data, model, forward)}
    out["cold_seconds"] = process_seconds()
    out["runs"] = [run(o, o.seed + i, data, model, forward) for i in range(o.seeds)]
    print(json.dumps(out))


if __name__ == "__main__":
    main()
