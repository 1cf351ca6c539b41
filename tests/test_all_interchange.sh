#!/usr/bin/env bash
# PyTorch opens model.safetensors, loads it with strict=True and gets the same test loss.
. "$(dirname "$0")/lib.sh"
python=build/venv/bin/python
if ! "$python" -c 'import torch, safetensors, numpy' 2>/dev/null; then
    skip "interchange with PyTorch" "build/venv has no torch, safetensors and numpy; ./scripts/setup.sh --dev installs them"
    finish
fi
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null

interchange() { # interchange NAME SET PROGRAM OPTIONS...
    local name=$1 set=$2
    shift 2
    ok "$name trains" "$@" --data "$work/$set" --batch-size 16 --epochs 3 --out "$work/$name" --quiet
    ok "$name is the same in PyTorch" "$python" tests/interchange.py "$work/$name" "tests/golden/$set"
}

interchange airbench colour "$train_cnn" --width 0.25 --tta 0
interchange airbench-grey grey "$train_cnn" --width 0.125 --tta 0
interchange simple grey "$train_cnn" --net simple
interchange linear grey "$train_mlp" --hidden none
interchange mlp grey "$train_mlp" --hidden 33,17
finish
