#!/usr/bin/env bash
# Valgrind's memcheck is silent: no wrong access, no decision on undefined values, nothing definitely
# lost, in unit tests and in short runs of every program. With the portable build, as valgrind knows
# no AVX-512.
. "$(dirname "$0")/lib.sh"
[ -z "$SANITIZE" ] || { skip "valgrind" "sanitized programs do not run under it" && finish; }
command -v valgrind >/dev/null || { skip "valgrind" "not installed (scripts/setup.sh --dev)" && finish; }
bin=$PWD/build/portable golden=$PWD/tests/golden
units=()
for test in tests/test_*.c; do
    unit=$(basename "$test" .c)
    case $unit in test_kernels | test_reference | test_sandbox) ;; *) units+=("$unit") ;; esac
done
skip "test_kernels, test_reference" "minutes; the runs below call the kernels"
skip "test_sandbox" "it tests what confined processes may not do, and valgrind does more"
ok "portable build" make -s PORTABLE=1 "${units[@]/#/build/portable/tests/}" \
    build/portable/train_mlp build/portable/train_cnn build/portable/train_airbench build/portable/predict build/portable/data/prepare
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2

silent() { # silent NAME COMMAND...
    local name=$1
    shift
    ok "$name" valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
        --errors-for-leak-kinds=definite "$@"
}
for unit in "${units[@]}"; do silent "$unit" "$bin/tests/$unit"; done

silent "prepare cifar" "$bin/data/prepare" cifar "$golden/colour" --out "$work/colour"
silent "prepare idx" "$bin/data/prepare" idx "$golden/grey" --out "$work/grey"
mlp=("$bin/train_mlp" --data "$work/grey" --hidden 16 --batch-size 8 --threads 2)
airbench=("$bin/train_airbench" --data "$work/colour" --width 0.125 --batch-size 8 --threads 2)
cnn=("$bin/train_cnn" --data "$work/colour" --width 0.125 --batch-size 8 --threads 2)
silent "train mlp" "${mlp[@]}" --steps 10 --save-every 4 --ema on --clip-norm 1 --out "$work/mlp"
silent "train cnn" "${cnn[@]}" --steps 4 --save-every 2 --augment flip=alternate,translate=2,cutout=4 --out "$work/cnn"
silent "train airbench" "${airbench[@]}" --steps 3 --out "$work/airbench"
for run in mlp cnn; do
    rm "$work/$run/model.safetensors" && rm -r "$(find "$work/$run/checkpoints" -name 'step_*' | sort | tail -n 1)"
done
silent "resume mlp" "$bin/train_mlp" --resume "$work/mlp"
silent "resume cnn" "$bin/train_cnn" --resume "$work/cnn"
silent "train plain" "${cnn[@]}" --net plain --steps 3 --optimizer adamw --out "$work/plain"
silent "profile" "${mlp[@]}" --steps 3 --profile --out "$work/profile"
silent "eval-only" "${cnn[@]}" --init "$work/cnn/model.safetensors" --eval-only
silent "selftest" "${mlp[@]}" --selftest
finish
