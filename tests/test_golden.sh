#!/usr/bin/env bash
# A few steps of each network and optimizer against PyTorch (tests/make_goldens.py): the losses, and
# where the weights end relative to how far they moved, which checks every gradient.
. "$(dirname "$0")/lib.sh"
golden=tests/golden
compare=$BUILD/tests/compare_models

"$prepare" cifar $golden/colour --out "$work/colour" >/dev/null || miss "prepare cifar"
"$prepare" idx $golden/grey --out "$work/grey" >/dev/null || miss "prepare idx"

losses_agree() { # losses_agree RUN FILE STEPS: each within 2e-5
    sed -nE 's/.*"loss": ?([0-9.e+-]+).*/\1/p' "$1/log.jsonl" >"$1/losses"
    tr -d '[]\n' <"$2" | tr ',' '\n' | paste -d' ' "$1/losses" - |
        awk -v steps="$3" '{d = $1 - $2; if (d < 0) d = -d; if (NF != 2 || d > 2e-5) bad = 1; print}
                           END {exit bad || NR != steps}'
}

golden() { # golden NET-OPTIMIZER STEPS TOLERANCE PROGRAM OPTIONS...
    local name=$1 steps=$2 tolerance=$3 before=$golden/${1%-*}.before.safetensors run=$work/$1
    shift 3
    ok "$name trains" "$@" --optimizer "${name#*-}" --init "$before" --steps "$steps" --batch-size 16 \
        --schedule constant --shuffle off --augment none --out "$run" --quiet
    ok "$name losses" losses_agree "$run" "$golden/$name.losses.json" "$steps"
    ok "$name weights" "$compare" "$golden/$name.after.safetensors" "$run/model.safetensors" \
        "$tolerance" "$before"
}

# tests/make_goldens.py made sure that rounding alone stays a tenth below each tolerance; a wrong
# gradient is off by about 1.
airbench=("$train_airbench" --data "$work/colour" --width 0.125 --tta 0 --lr 0.5)
golden airbench-sgd 2 1e-3 "${airbench[@]}"
golden airbench-muon 2 1e-3 "${airbench[@]}"
golden airbench-adamw 2 1e-2 "${airbench[@]}"
for optimizer in sgd muon adamw; do
    golden cnn-$optimizer 2 1e-3 "$train_cnn" --data "$work/colour" --net small --width 0.125
    golden plain-$optimizer 3 1e-3 "$train_cnn" --data "$work/grey" --net plain --width 0.25
    golden mlp-$optimizer 4 1e-3 "$train_mlp" --data "$work/grey" --hidden 24,16 --label-smoothing 0.1
done

for set in colour grey; do
    ok "$set whitening trains" "$train_airbench" --data "$work/$set" --width 0.125 --lr 0 --steps 1 \
        --batch-size 16 --out "$work/whiten-$set" --quiet
    ok "$set whitening filters" "$compare" "$golden/$set.whitening.safetensors" \
        "$work/whiten-$set/model.safetensors" 1e-4
done
finish
