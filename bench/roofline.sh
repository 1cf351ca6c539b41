#!/usr/bin/env bash
# Each operation of a training step against this machine's ceilings: bench/roofline.sh [THREADS...]
# Networks A (SGD and AdamW), B and C at the batch sizes of bench/compare.py; C in bf16 where the
# processor has it. MNIST names MNIST's shards; without, B is left out. The profiles and tables are
# also appended to bench/results/DATE-roofline.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
make -s train_mlp train_cnn train_airbench build/native/bench/roofline
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
results=bench/results/$(date +%F)-roofline.txt

row() { # row TITLE THREADS DTYPE COMMAND...
    local title=$1 threads=$2 dtype=$3
    shift 3
    rm -rf "$work/run"
    echo
    echo "== $title, $threads threads, $dtype: $* --threads $threads --dtype $dtype --profile"
    if "$@" --threads "$threads" --dtype "$dtype" --profile --quiet --out "$work/run" \
        >/dev/null 2>"$work/error"; then
        build/native/bench/roofline "$threads" "$dtype" "$work/run/profile.json"
    else
        echo "skipped: $(cat "$work/error")"
    fi
}

all() {
    echo "# $(date '+%F %R') bench/roofline.sh, commit $(git describe --always --dirty)"
    echo "# $(sed -nE 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)"
    local t
    for t in "$@"; do
        row "A: MLP, SGD" "$t" fp32 ./train_mlp --steps 600 --optimizer sgd
        row "A: MLP, AdamW" "$t" fp32 ./train_mlp --steps 600
        [ -z "${MNIST:-}" ] || row "B: MNIST" "$t" fp32 ./train_cnn --data "$MNIST" --batch-size 128 --steps 300 \
            --optimizer sgd
        row "C: CIFAR network" "$t" fp32 ./train_airbench --width 1 --batch-size 500 --steps 6 --tta 0 --optimizer sgd
        row "C: CIFAR network" "$t" bf16 ./train_airbench --width 1 --batch-size 500 --steps 6 --tta 0 --optimizer sgd
    done
}

[ $# -gt 0 ] || set -- 2 1
all "$@" | tee -a "$results"
