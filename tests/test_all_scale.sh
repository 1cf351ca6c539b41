#!/usr/bin/env bash
# bench/scale.py reads the profile.json of a run and what time_collectives prints, and its model does what it should.
. "$(dirname "$0")/lib.sh"
if ! command -v python3 >/dev/null; then
    skip "the model of scaling" "no python3"
    finish
fi
"$train_mlp" --steps 3 --hidden 64 --batch-size 64 --device cpu --profile --quiet --out "$work/mlp" >/dev/null
"$train_airbench" --steps 2 --width 0.25 --tta 0 --batch-size 64 --device cpu --profile --quiet --out "$work/cnn" >/dev/null

scale() { bench/scale.py "$work/$1/profile.json" "${@:2}" >"$work/$1.scale"; }
# efficiency FILE TABLE GPUS: of the first (weak) or second (strong) table
efficiency() { awk -v table="$2" -v gpus="$3" '/scaling:/ {t++} t == table && $1 == gpus {print $NF + 0}' "$work/$1.scale"; }
# 784*64 + 64 + 64*10 + 10, as the trainer counts them
ok "an MLP" scale mlp
ok "its gradients" grep -q '^50,890 gradients' "$work/mlp.scale"
ok "one GPU is the measure" test "$(efficiency mlp 1 1)" = 100
ok "a CNN" scale cnn
ok "batch norm's waits grow" test "$(efficiency cnn 1 4096 | cut -d. -f1)" -lt "$(efficiency cnn 1 8 | cut -d. -f1)"
synchronised=$(efficiency cnn 1 64)
ok "a CNN, --bn local" scale cnn --bn local
ok "without them it is faster" awk "BEGIN {exit !($(efficiency cnn 1 64) > $synchronised)}"
ok "a larger network hides more" scale cnn --bn local --batch 65536
ok "nearly all" at_least "$(efficiency cnn 1 4096)" 80

cat >"$work/exchange.txt" <<'END'
2 ranks on cpu
    floats       sum us    gather us   sum GB/s
        16         20.0         10.0      0.003
   1048576        520.0          0.0      8.000
END
ok "measured exchanges" scale mlp --exchange "$work/exchange.txt"
ok "are used" grep -q '^2 processes of 64 images: .*exposed' "$work/mlp.scale"
fails "not a profile" 1 "no profile.json of a run with --profile" bench/scale.py "$work/exchange.txt"
finish
