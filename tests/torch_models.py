"""The trainers' networks in PyTorch: names and layouts of model.safetensors are fixed here.

    model = torch_models.from_file("runs/.../model.safetensors")     # strict
    logits = model(images)          # (n,C,H,W) normalised: (x/255 - mean) / std

Needs torch and safetensors. Used by the interchange tests and by make_goldens.py.
"""
import json
import re

import torch
from torch import nn
from torch.nn import functional as F


class Norm(nn.BatchNorm2d):
    """Batch norm with a bias only; the weight stays one. momentum is PyTorch's."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False


class Block(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
        self.norm1 = Norm(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.norm2 = Norm(cout)

    def forward(self, x):
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """train_airbench: specification in its source."""

    def __init__(self, channels, classes, widths):
        super().__init__()
        c = 2 * 4 * channels
        self.whiten = nn.Conv2d(channels, c, 2)
        self.whiten.weight.requires_grad = False
        self.block1 = Block(c, widths[0])
        self.block2 = Block(widths[0], widths[1])
        self.block3 = Block(widths[1], widths[2])
        self.head = nn.Linear(widths[2], classes, bias=False)
        self.logit_scale = 1 / (16 * widths[2] ** 0.5)

    def forward(self, x):
        x = F.gelu(self.whiten(x))
        x = self.block3(self.block2(self.block1(x)))
        return self.head(x.amax((2, 3))) * self.logit_scale


class BasicBlock(nn.Module):
    """torchvision's, with its names."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


# train_cnn's table: (width, kernel, stride) of the stem, (width, blocks, stride) of the stages.
STAGES = [(64, 1, 2), (128, 1, 2), (256, 1, 2)]
NETS = {
    "plain": ([(32, 3, 2), (64, 3, 2), (128, 3, 2), (128, 3, 1)], []),
    "small": ([(32, 3, 1)], STAGES),
    "medium": ([(32, 3, 2)], STAGES),
    "large": ([(32, 3, 2), (64, 3, 2)], STAGES),
}


class Residual(nn.Module):
    """train_cnn."""

    def __init__(self, channels_in, classes, stem, stages, width):
        super().__init__()
        c = channels_in
        self.stem = range(1, len(stem) + 1)
        self.stages = range(1, len(stages) + 1)
        for i, (full, kernel, stride) in enumerate(stem, 1):
            cout = channels(full, width)
            self.add_module(f"conv{i}", nn.Conv2d(c, cout, kernel, stride, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(cout))
            c = cout
        for i, (full, blocks, stride) in enumerate(stages, 1):
            cout = channels(full, width)
            layer = [BasicBlock(c if j == 0 else cout, cout, stride if j == 0 else 1) for j in range(blocks)]
            self.add_module(f"layer{i}", nn.Sequential(*layer))
            c = cout
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        for i in self.stem:
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        for i in self.stages:
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


class Mlp(nn.Module):
    """train_mlp; `sizes` from inputs to classes."""

    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def channels(full, width):
    return max(8, int(full * width / 8 + 0.5) * 8)


def build(network, shape, classes):
    """`network` as the file's metadata says it: "cnn-airbench width=0.25", "mlp hidden=512,512"."""
    h, w, c = shape
    if network.startswith("mlp"):
        hidden = network.split("hidden=")[1]
        return Mlp([h * w * c] + [int(x) for x in hidden.split(",") if x != "none"] + [classes])
    width = float(re.search(r"width=(\S+)", network).group(1))
    if network.startswith("cnn-airbench"):
        return Airbench(c, classes, [channels(x, width) for x in (64, 256, 256)])
    return Residual(c, classes, *NETS[network.split()[0].removeprefix("cnn-")], width)


def metadata(path):
    from safetensors import safe_open
    with safe_open(path, "pt") as f:
        return f.metadata()


def from_file(path):
    from safetensors.torch import load_file
    m = metadata(path)
    shape = [int(x) for x in m["nn.input"].split("x")]
    model = build(m["nn.network"], shape, len(json.loads(m["nn.classes"])))
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()
