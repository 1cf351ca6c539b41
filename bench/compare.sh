#!/usr/bin/env bash
# nn.c against PyTorch on this machine: bench/compare.sh [ROUNDS]
# Processes alternate (ours, peer, ours, ...), each reports the median images/s of its warm steps;
# the table shows medians over the rounds and the median of the ratios, pair by pair. Ours counts
# loading, augmentation and logging; the peer trains on one fixed batch.
# PYTHON names a Python with torch (build/venv's by default).
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
python=${PYTHON:-build/venv/bin/python}
# Without these glibc gives big buffers back to the system at each step.
export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=4000000000
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE || true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

median() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

ours() { # ours PROGRAM OPTIONS...: median images/s of the last three quarters of the steps
    rm -rf "$work/run"
    "$@" --out "$work/run" --quiet >/dev/null
    sed -nE 's/.*"images_per_s": ?([0-9.e+]+).*/\1/p' "$work/run/log.jsonl" >"$work/rates"
    tail -n "$(($(wc -l <"$work/rates") * 3 / 4))" "$work/rates" | median
}

row() { # row NAME PEER_ARGUMENTS -- OUR_COMMAND...
    local name=$1 peer=() i a b
    shift
    while [ "$1" != -- ]; do peer+=("$1") && shift; done
    shift
    : >"$work/a" && : >"$work/b" && : >"$work/r"
    for ((i = 0; i < rounds; i++)); do
        a=$(ours "$@")
        b=$("$python" bench/torch_peer.py "${peer[@]}" 2>/dev/null) || { echo "$name: the peer failed" && return; }
        echo "$a" >>"$work/a" && echo "$b" >>"$work/b"
        awk "BEGIN {print $a / $b}" >>"$work/r"
    done
    printf '%-34s %9.0f %9.0f %7.2f   (%s)\n' "$name" "$(median <"$work/a")" "$(median <"$work/b")" \
        "$(median <"$work/r")" "$(sort -n "$work/r" | awk '{printf "%s%.2f", (NR > 1 ? " " : ""), $1}')"
}

echo "$(date -u +%F) $(sed -nE 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), PyTorch $("$python" -c 'import torch; print(torch.__version__)'), commit $(git rev-parse --short HEAD)"
printf '%-34s %9s %9s %7s\n' "images/s, 2 threads" nn.c PyTorch ratio
sgd=(--optimizer sgd --threads 2)
for mode in eager jit; do
    row "MLP 128 SGD, $mode" mlp-sgd --mode $mode --steps 600 -- ./train_mlp --steps 600 "${sgd[@]}"
    row "MLP 128 AdamW, $mode" mlp-adamw --mode $mode --steps 600 -- ./train_mlp --steps 600 --threads 2
done
for mode in eager channels_last; do
    row "small CNN 128 SGD, $mode" simple --mode $mode --steps 200 -- \
        ./train_cnn --net simple --width 0.5 --data "${MNIST:-data/mnist}" --steps 200 "${sgd[@]}"
    row "CIFAR network 500 SGD, $mode" airbench --mode $mode --steps 12 -- \
        ./train_cnn --width 1 --batch-size 500 --steps 12 --tta 0 "${sgd[@]}"
done
