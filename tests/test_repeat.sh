#!/usr/bin/env bash
# Reproducible bits: the same seed twice and any number of threads give the same model file and the
# same losses; another seed does not.
. "$(dirname "$0")/lib.sh"

train() { # train NAME PROGRAM OPTIONS...
    local name=$1
    shift
    "$@" --out "$work/$name" --quiet >/dev/null || miss "$name trains"
}
same() { cmp "$work/$1/model.safetensors" "$work/$2/model.safetensors"; }
losses() { sed -nE 's/.*"loss": ?([0-9.e+-]+).*/\1/p' "$work/$1/log.jsonl"; }
same_losses() { [ -n "$(losses "$1")" ] && [ "$(losses "$1")" = "$(losses "$2")" ]; }
differ() { ! same "$1" "$2" >/dev/null; }

check_program() { # check_program NAME PROGRAM OPTIONS...
    local name=$1
    shift
    train "$name-1" "$@" --threads 1
    train "$name-again" "$@" --threads 1
    train "$name-2" "$@" --threads 2
    train "$name-3" "$@" --threads 3
    train "$name-seed" "$@" --threads 2 --seed 2
    ok "$name: same seed, same bits" same "$name-1" "$name-again"
    ok "$name: 2 threads, same bits" same "$name-1" "$name-2"
    ok "$name: 3 threads, same bits" same "$name-1" "$name-3"
    ok "$name: same losses" same_losses "$name-1" "$name-2"
    ok "$name: another seed, other bits" differ "$name-1" "$name-seed"
}

# Sanitized programs are slow: few small images serve there.
data=()
if [ -n "$SANITIZE" ]; then
    "$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
    data=(--data "$work/colour")
fi
check_program airbench "$train_airbench" "${data[@]}" --steps 6 --batch-size 50 --width 0.125 --ema on --clip-norm 5
check_program cnn "$train_cnn" "${data[@]}" --net small --batch-size 50 --steps 6 --width 0.25 --augment translate=2,cutout=6
check_program mlp "$train_mlp" "${data[@]}" --batch-size 50 --steps 20 --hidden 96,64
finish
