"""predict_torch.py NETWORK DATA PICTURE OUT: weights made in PyTorch, and what it sees in a picture.

Builds NETWORK (as nn.network says it) with random weights for the data set in DATA, saves it to
OUT/plain.safetensors without metadata and by the code of docs/predict.md, with metadata, to
OUT/weights.safetensors. Prints the classes' probabilities for PICTURE, a 24-bit BMP of the data
set's size, as "probability name", largest first.
"""
import json
import pathlib
import re
import struct
import sys

import torch
from safetensors.torch import save_file

import torch_models


def read_shard(path):
    """Shape, mean and std of channels, and class names: data/README.md."""
    b = path.read_bytes()
    h, w, c = struct.unpack_from("<3I", b, 64)
    at, size = struct.unpack_from("<2Q", b, 128)
    mean, std = (list(struct.unpack_from("<4f", b, o)[:c]) for o in (192, 208))
    return (h, w, c), mean, std, b[at:at + size].decode().split("\0")[:-1]


def read_bmp(path, h, w):
    """(3,h,w), red first; a BMP has its lowest row first, and blue first."""
    b = path.read_bytes()
    rows = torch.frombuffer(bytearray(b), dtype=torch.uint8, offset=struct.unpack_from("<I", b, 10)[0])
    return rows[:h * w * 3].view(h, w, 3).flip(0, 2).permute(2, 0, 1)


def save_as_documented(model, network, shape, mean, std, classes, out):
    options = dict(o.split("=") for o in network.split()[1:])
    airbench = network.startswith("cnn-airbench")
    if network.startswith("cnn-"):
        options = {"width": float(options["width"])}
        options |= {"tta": 0} if airbench else {"net": network.split()[0][4:]}
    meta = {
        "nn.trainer": "train_mlp" if network.startswith("mlp") else "train_airbench" if airbench else "train_cnn",
        "nn.options": json.dumps(options),
        "nn.input": "x".join(map(str, shape)),
        "nn.classes": json.dumps(classes),
        "nn.mean": json.dumps(mean),
        "nn.std": json.dumps(std),
    }
    page = (pathlib.Path(__file__).parent.parent / "docs/predict.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    assert sorted(re.findall(r'"(nn\.\w+)"', code)) == sorted(meta)
    code = re.sub(r'("nn\.\w+"): [^\n]*', lambda key: f"{key[1]}: meta[{key[1]}],", code)
    exec(code.replace("weights.safetensors", str(out / "weights.safetensors")))  # uses model and meta


def main():
    network, (data, picture, out) = sys.argv[1], map(pathlib.Path, sys.argv[2:5])
    shape, mean, std, classes = read_shard(next(data.glob("x-train-00000-of-*.nns")))
    torch.manual_seed(3)
    model = torch_models.build(network, shape, len(classes)).eval()
    save_file(model.state_dict(), str(out / "plain.safetensors"))
    save_as_documented(model, network, shape, mean, std, classes, out)
    x = read_bmp(picture, *shape[:2]) / 255
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))
    with torch.no_grad():
        p = model(((x - mean) / std)[None]).softmax(1)[0]
    for i in p.argsort(descending=True):
        print(f"{p[i]:.6f} {classes[i]}")


if __name__ == "__main__":
    main()
