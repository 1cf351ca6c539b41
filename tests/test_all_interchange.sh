#!/usr/bin/env bash
# PyTorch opens model.safetensors, loads it with strict=True, and gets the same test loss and
# predictions.
. "$(dirname "$0")/lib.sh"
python=build/venv/bin/python
if ! "$python" -c 'import torch, safetensors, numpy' 2>/dev/null; then
    skip "interchange with PyTorch" "build/venv has no torch, safetensors and numpy; ./scripts/setup.sh --dev installs them"
    finish
fi
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null

# What the Python library saved has the same loss (to 1e-4) and accuracy here.
same_here() { # same_here NAME PROGRAM OPTIONS...: the weights in $work/NAME.safetensors
    local name=$1 expected found
    shift
    expected=$("$python" tests/interchange.py "$work/$name" "tests/golden/$set" "$work/$name.safetensors") || return 1
    found=$("$@" --data "$work/$set" --init "$work/$name.safetensors" --eval-only) || return 1
    found=$(sed -nE 's/^test accuracy ([0-9.]+)%, loss ([0-9.]+),.*/\2 \1/p' <<<"$found")
    echo "PyTorch: $expected; nn.c: $found"
    awk -v e="$expected" -v f="$found" 'BEGIN {
        split(e, a); split(f, b)
        difference = a[1] - b[1]
        if (difference < 0) difference = -difference
        exit !(difference <= 1e-4 * a[1] + 5e-5 && a[2] * 100 - b[2] < 0.01 && b[2] - a[2] * 100 < 0.01)
    }'
}

# The same tensors and metadata, in the order in which the Python library writes them.
written_anew() { # written_anew NAME PROGRAM OPTIONS...
    local name=$1
    shift
    "$python" -c 'import sys
from safetensors import safe_open
from safetensors.torch import save_file
with safe_open(sys.argv[1], "pt") as f:
    save_file({name: f.get_tensor(name) for name in f.keys()}, sys.argv[2], f.metadata())' \
        "$work/$name/model.safetensors" "$work/anew.safetensors" || return
    ! cmp -s "$work/$name/model.safetensors" "$work/anew.safetensors" &&
        "$@" --data "$work/$set" --init "$work/anew.safetensors" --eval-only
}

interchange() { # interchange NAME SET PROGRAM OPTIONS...
    local name=$1 set=$2
    shift 2
    ok "$name trains" "$@" --data "$work/$set" --batch-size 16 --epochs 3 --out "$work/$name" --quiet
    ok "$name is the same in PyTorch" "$python" tests/interchange.py "$work/$name" "tests/golden/$set"
    ok "$name sees the same in each picture as PyTorch" "$python" tests/interchange.py "$work/$name" \
        "tests/golden/$set" --predict "$predict"
    ok "$name written anew is read" written_anew "$name" "$@"
    ok "$name saved by PyTorch is the same here" same_here "$name" "$@"
}

interchange airbench colour "$train_airbench" --width 0.25 --tta 0
interchange airbench-grey grey "$train_airbench" --width 0.125 --tta 0
interchange plain grey "$train_cnn" --net plain
interchange small colour "$train_cnn" --net small --width 0.25
interchange linear grey "$train_mlp" --hidden none
interchange mlp grey "$train_mlp" --hidden 33,17
finish
