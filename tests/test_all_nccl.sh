#!/usr/bin/env bash
# Several processes with a GPU each, on the emulated CUDA backend and its NCCL: sums beside other
# work, both trainers as with one process, and what is refused or lost.
. "$(dirname "$0")/cuda_on_cpu/lib.sh"
. "$(dirname "$0")/mpi.sh"
if ! grep -q NN_NCCL "$BUILD/kernels/cuda/nccl"; then
    skip "several GPUs" "no NCCL here to build with (libnccl-dev)"
    finish
fi
# What MPI's libraries leave allocated or lock in two orders is theirs.
export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 TSAN_OPTIONS=$TSAN_OPTIONS:detect_deadlocks=0

# several N HOW ORDER PROGRAM ARGUMENTS...
several() {
    local n=$1 how=$2 order=$3 program=$4
    shift 4
    NN_EMU_ORDER=$order ranks "$n" "${fixed_addresses[@]}" "$emulated/$how/$program" "$@"
}

# ---- sums ----
for order in forward reverse random; do
    for n in 2 3; do ok "sums of $n ranks: asan, $order" several $n asan $order check_collectives cuda; done
done
ok "sums of 2 ranks: tsan, random" several 2 tsan random check_collectives cuda

# ---- trainers ----
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null

# Four steps: a sum's order changes with the number of ranks, and training amplifies that: tolerance
# of lib.sh, fp32.
as_one() { # as_one NAME PROGRAM OPTION...
    local name=$1 program=$2
    shift 2
    local options=("$@" --steps 4 --batch-size 12 --quiet --seed 3 --device cuda --dtype fp32)
    ok "$name alone" emulated asan forward "$program" "${options[@]}" --out "$work/$name-1"
    for n in 2 3; do
        ok "$name on $n ranks" several $n asan random "$program" "${options[@]}" --out "$work/$name-$n"
        ok "$name on $n ranks: the losses of one" losses_agree "$work/$name-$n" "$work/$name-1" "$(tolerance fp32)"
    done
    ok "$name on 2 ranks again" several 2 asan reverse "$program" "${options[@]}" --out "$work/$name-again"
    ok "$name on 2 ranks again: the same bits" cmp "$work/$name-2/model.safetensors" "$work/$name-again/model.safetensors"
}
as_one mlp train_mlp --data "$work/grey" --hidden 24,16
as_one airbench train_airbench --data "$work/colour" --width 0.125 --tta 0
as_one plain train_cnn --data "$work/grey" --net plain --width 0.5

# ---- what is refused or lost ----
ends() { # ends NAME STATUS TEXT COMMAND...
    local name=$1 status=$2 text=$3
    shift 3
    "$@" >"$work/out" 2>&1
    local got=$?
    if [ $got -eq "$status" ] && grep -qF -- "$text" "$work/out"; then
        pass "$name"
    else
        miss "$name: status $got for $status, for '$text': $(head -n 5 "$work/out")"
    fi
}
one_gpu() { NN_EMU_GPU=1 several 2 asan forward check_collectives cuda; }
ends "two ranks with one GPU" 5 "ranks 0 and 1 have the same GPU" one_gpu
cut() { NN_EMU_NCCL_FAULT=40 several 2 asan reverse train_mlp --data "$work/grey" --hidden 24 --steps 9999 --device cuda --out "$work/cut"; }
ends "NCCL loses the others" 1 "a sum over the processes: an emulated error" cut

lost() { # a rank is killed in the middle of the run; mpirun ends with a status of its own
    several 2 asan forward train_mlp --data "$work/grey" --hidden 24 --steps 100000 --save-every 20 --device cuda --out "$work/lost" &
    local launcher=$! began=$SECONDS
    until [ -e "$work/lost/checkpoints/step_00000020" ] || [ $((SECONDS - began)) -gt 60 ]; do sleep 0.1; done
    kill -KILL "$(pgrep -f -- "^$emulated/asan/train_mlp .*--out $work/lost" | tail -n 1)"
    ! wait $launcher && ! pgrep -f -- "^$emulated/asan/train_mlp .*--out $work/lost"
}
ok "a rank is killed: the other ends" lost
finish
