#!/usr/bin/env bash
# nn.c and what one could run instead, on one NVIDIA GPU; see --help.
set -uo pipefail

usage() {
    cat <<'TEXT'
Usage: bench/gpu/run.sh steps|speedrun [--dry-run]

steps      the time of each convolution of the CIFAR network (batch 1536, bf16) beside cuDNN and bare
           matrix products, of a training step of that network and of the MLP (batch 128, 512, 8192)
           beside PyTorch: eager, compiled, as a CUDA graph
speedrun   recipe B on data/cifar10 from several seeds, warm and from a cold start, beside the same
           recipe in PyTorch; an epoch of MNIST (data/mnist)
--dry-run  everything tiny and on the CPU, to see that it works; nothing is recorded

Each takes under 8 minutes. Prints a table of ratios with the floors of an H200 (bench/gpu/table.py floors)
and appends it to bench/results/DATE-gpu-WHAT.txt. PYTHON names a Python with PyTorch for CUDA
(default build/bench-venv/bin/python, made by bench/setup.sh), CIFAR10 and MNIST the data sets. What
is missing is skipped by name.
TEXT
}

wrong() {
    echo "error: expected steps or speedrun, and perhaps --dry-run; bench/gpu/run.sh --help" >&2
    exit 2
}

what=${1-} device=cuda dtype=bf16 batch=1536
case $what in
steps | speedrun) ;;
-h | --help) usage && exit 0 ;;
*) wrong ;;
esac
dry=0 turn=1 least=0.1
case ${2-} in
'') ;;
--dry-run) dry=1 turn=0.01 least=0.001 device=cpu dtype=fp32 batch=4 ;;
*) wrong ;;
esac
cd "$(dirname "$0")/../.." || exit 1
build=build/native end=$((SECONDS + 460))
python=${PYTHON:-build/bench-venv/bin/python}
python=$(command -v "$python" || echo "$python") # a name or a path
cifar=${CIFAR10:-data/cifar10} mnist=${MNIST:-data/mnist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
times=$work/times.tsv # lines of row, program, seconds
: >"$times"

skip() { echo "skipped: $1: $2"; }

# within NAME LIMIT COMMAND...: its output; a line says so if it fails.
within() {
    local name=$1 limit=$2 left=$((end - SECONDS)) status
    shift 2
    [ "$left" -ge 5 ] || { skip "$name" "no time left of the 8 minutes" >&2 && return 1; }
    timeout -k 5 "$((limit < left ? limit : left))" "$@" 2>"$work/error"
    status=$?
    [ $status -eq 0 ] || skip "$name" "status $status: $(grep . "$work/error" | tail -n 1)" >&2
    return $status
}

record() { # record ROW PROGRAM SECONDS
    if [ -n "$3" ]; then printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$times"; fi
}

torch_missing() {
    [ -x "$python" ] || { echo "no $python: run bench/setup.sh, or set PYTHON" && return; }
    "$python" -c "import torch, sys; sys.exit('$device' == 'cuda' and not torch.cuda.is_available())" \
        2>/dev/null || echo "$python has no PyTorch that can use $device"
}

# A number of speedrun.json, the first after the word: json FILE WORD KEY
json() { grep -oE "\"$2\":.*" "$1" | grep -oE "\"$3\": ?[0-9.e+-]+" | head -n 1 | sed 's/.*: *//'; }

# ours NAME LIMIT PROGRAM OPTION...: a speedrun into $work/NAME
ours() {
    local name=$1 limit=$2
    shift 2
    within "nn.c $name" "$limit" "$@" --device $device --speedrun --quiet --out "$work/$name"
}

# Seconds of a step, of the warm run: gathering the pictures is in it, logging and evaluation are not.
# In the order of the data, as the peers' one batch: the host computes no order.
our_step() { # our_step ROW STEPS PROGRAM OPTION...
    local row=$1 steps=$2 name=${1//[^a-zA-Z0-9]/-}
    shift 2
    ours "$name" 60 "$@" --shuffle off --dtype $dtype --steps "$steps" --seeds 1 >/dev/null || return
    record "$row" nn.c "$(awk "BEGIN {print $(json "$work/$name/speedrun.json" runs train_seconds) / $steps}")"
}

peer_step() { # peer_step ROW NETWORK BATCH MODE
    [ -z "$no_torch" ] || return
    echo turn | within "PyTorch $1 $4" 75 "$python" bench/torch_peer.py "$2" --device $device --batch "$3" \
        --mode "$4" --turn "$turn" --steps 2 >"$work/peer" || return
    record "$1" "PyTorch $4" "$(sed -n '3s/[][]//gp' "$work/peer" | tr ',' '\n' | sort -g |
        awk '{x[NR] = $1} END {print x[int((NR + 1) / 2)]}')"
}

# Times of tests/time_kernels.c under the rows' names.
our_layers() {
    within "nn.c layers" 120 $build/time_kernels $device $dtype $batch | awk -F '\t' '
        $1 == "time" && $2 ~ /^conv2d_(pool_)?(forward|backward_data|backward_weight)$/ {
            operation = $2
            sub(/.*_/, "", operation)
            split($3, d, /[x ]/) # NxHxWxCin to Cout
            print operation " " d[4] "->" d[6] " @" d[2] ($2 ~ /pool/ ? " pool" : "") "\tnn.c\t" $4 * 1e-6
        }' >>"$times"
}

steps() {
    local modes=(bf16+channels_last) m b mlp=(eager)
    our_layers
    [ -n "$no_torch" ] || within "PyTorch layers" 120 "$python" bench/gpu/layers.py --device $device \
        --batch $batch --least "$least" >>"$times"
    our_step "step C B=$batch" "$((dry ? 2 : 1000))" ./train_airbench --width 1 --batch-size $batch --tta 0
    if [ $dry = 0 ]; then
        modes=(bf16+channels_last bf16+channels_last+graph bf16+compile+channels_last
            bf16+compile+channels_last+graph)
        mlp=(bf16 bf16+graph bf16+compile+graph)
    fi
    for m in "${modes[@]}"; do peer_step "step C B=$batch" airbench-muon $batch "$m"; done
    for b in 128 512 8192; do
        our_step "step MLP B=$b" "$((dry ? 2 : 10000))" ./train_mlp --batch-size $b
        for m in "${mlp[@]}"; do peer_step "step MLP B=$b" mlp-adamw $b "$m"; done
    done
}

accuracies() { # accuracies TITLE FILE: mean and sigma of the warm runs
    sed 's/"summary".*//; s/.*"runs"://' "$2" | grep -oE '"test_accuracy": ?[0-9.]+' | sed 's/.*: *//' |
        awk -v title="$1" '{n++; s += $1; q += $1 * $1} END {
            v = n > 1 ? (q - s * s / n) / (n - 1) : 0
            printf "%s: mean accuracy %.3f%%, sigma %.3f%%, of %d seeds\n", title, 100 * s / n, 100 * sqrt(v > 0 ? v : 0), n}'
}

speedrun() {
    local seeds=20 mnist_batch=512 options=(--batch-size 2000) peer=() modes=(eager compile) m
    if [ $dry = 1 ]; then
        seeds=2 mnist_batch=8 options=(--width 0.125 --batch-size 50 --steps 3)
        peer=(--width 0.125 --batch 50 --steps 3) modes=(eager)
    fi
    if ! [ -e "$cifar" ]; then
        skip speedrun "no $cifar: scripts/download.sh cifar10"
    elif ours speedrun 120 ./train_airbench --data "$cifar" --seeds $seeds "${options[@]}" >/dev/null; then
        record speedrun nn.c "$(json "$work/speedrun/speedrun.json" summary seconds_mean)"
        record "cold start" nn.c "$(json "$work/speedrun/speedrun.json" summary cold_seconds)"
        accuracies nn.c "$work/speedrun/speedrun.json"
    fi
    if [ -n "$no_torch" ] || ! [ -e "$cifar" ]; then modes=(); fi
    for m in "${modes[@]}"; do
        within "PyTorch recipe $m" 200 "$python" bench/gpu/recipe.py --data "$cifar" --device $device \
            --mode "$m" --seeds $seeds "${peer[@]}" >"$work/recipe" || continue
        record speedrun "PyTorch $m" "$(grep -oE '"seconds": [0-9.e-]+' "$work/recipe" |
            awk 'NR > 1 {s += $2; n++} END {print s / n}')"
        record "cold start" "PyTorch $m" "$(json "$work/recipe" cold_seconds cold_seconds)"
        accuracies "PyTorch $m" "$work/recipe"
    done
    if ! [ -e "$mnist" ]; then
        skip "epoch MNIST" "no $mnist: scripts/download.sh mnist"
    elif ours mnist 60 ./train_mlp --data "$mnist" --batch-size $mnist_batch --epochs 1 --seeds 3 >/dev/null; then
        record "epoch MNIST B=512" nn.c "$(json "$work/mnist/speedrun.json" runs train_seconds)"
    fi
}

describe() {
    if [ $dry = 1 ]; then echo "# A dry run on the CPU: its figures mean nothing"; fi
    echo "# $(date '+%F %R') bench/gpu/run.sh $what, commit $(git describe --always --dirty 2>/dev/null)"
    if [ "$device" = cuda ]; then
        echo "# $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1 | head -n 1)"
    fi
    echo "# PyTorch ${no_torch:-$("$python" -c 'import torch; print(torch.__version__)')}"
}

everything() {
    describe
    [ -z "$no_torch" ] || skip PyTorch "$no_torch"
    $what 2>&1
    python3 bench/gpu/table.py "$times" $batch
}

make -s CUDA=1 train_mlp train_airbench $build/time_kernels >&2 || exit 1
no_torch=$(torch_missing)
if [ $dry = 1 ]; then
    everything
else
    everything | tee -a "bench/results/$(date +%F)-gpu-$what.txt"
fi
