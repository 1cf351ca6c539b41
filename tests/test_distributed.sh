#!/usr/bin/env bash
# Several processes on this machine train what one does: the same losses, equal bits for an equal
# number of ranks, one run directory, and one message for what cannot be. Faults and the other
# numbers of ranks are test_all_distributed.sh's.
. "$(dirname "$0")/lib.sh"
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null

# ---- a launcher, but no MPI: needs none here ----
mkdir "$work/alone"
cp "$train_mlp" "$work/alone"
fails "several processes without MPI" 1 "this build has no MPI" env OMPI_COMM_WORLD_SIZE=2 "$work/alone/train_mlp"
ok "one process of a launcher needs no MPI" env OMPI_COMM_WORLD_SIZE=1 PMI_SIZE=1 "$work/alone/train_mlp" --help

. "$(dirname "$0")/mpi.sh"
export ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0 # what MPI leaves allocated is MPI's
mlp=("$train_mlp" --data "$work/grey" --hidden "24,16" --batch-size 12 --steps 10 --quiet --clip-norm 1 --ema on)
# At the recipe's rates batch norm amplifies roundings a hundredfold a step: docs/distributed.md.
cnn=("$train_airbench" --data "$work/colour" --width 0.125 --tta 1 --batch-size 12 --steps 6 --lr 0.01 --quiet)

# ---- the same curve ----
for name in mlp cnn; do
    declare -n command=$name
    ok "$name alone" "${command[@]}" --out "$work/$name-1"
    for n in 2 3; do
        ranks $n "${command[@]}" --out "$work/$name-$n" >"$work/told"
        ok "$name on $n ranks" test $? -eq 0
        ok "$name on $n ranks: rank 0 alone tells the result" test "$(grep -c ^result "$work/told")" -eq 1
        ok "$name on $n ranks: the losses of one" curves_agree "$work/$name-$n" "$work/$name-1" 1e-5
        ok "$name on $n ranks: the arithmetic of an image" \
            test "$(number "$work/$name-$n" flop_per_image)" = "$(number "$work/$name-1" flop_per_image)"
    done
    ok "$name on 2 ranks again" ranks 2 "${command[@]}" --threads 2 --out "$work/$name-again"
    ok "$name on 2 ranks again, the same bits" cmp "$work/$name-2/model.safetensors" "$work/$name-again/model.safetensors"
done
ok "cnn with local batch norm" ranks 2 "${cnn[@]}" --bn local --out "$work/local"
local_differs() { ! curves_agree "$work/local" "$work/cnn-1" 1e-4; }
ok "local batch norm is not that of one process" local_differs
tested() { "$@" "$train_airbench" --data "$work/colour" --width 0.125 --batch-size 12 --init "$work/cnn-1/model.safetensors" --eval-only; }
ok "weights tested by 3 ranks" test "$(tested ranks 3)" = "$(tested env)"

# ---- exchanged while the backward pass runs ----
traced() {
    ranks 2 "$train_airbench" --data "$work/colour" --width 1 --tta 0 --batch-size 12 --steps 6 --quiet --profile --out "$work/trace" >"$work/trace.txt" || return
    cat "$work/trace.txt"
    awk '$1 == "bucket" {n++; if ($2 == 1) begins = $4; size += $3} $1 == "backward" {ends = $3}
        END {exit !(n >= 3 && begins > 0 && begins < 0.9 * ends && size > 7.8)}' "$work/trace.txt"
}
ok "the first bucket of gradients is on its way before the backward pass ends" traced

# shellcheck disable=SC2016 # each rank's own variable
ok "ranks with threads of their own" ranks 2 sh -c \
    'if [ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 0 ]; then set -- "$@" --threads 2; fi; exec "$@"' sh "${mlp[@]}" --out "$work/uneven"
ok "ranks with threads of their own: the same bits" cmp "$work/uneven/model.safetensors" "$work/mlp-2/model.safetensors"

# ---- refused, told once ----
refused() { # refused NAME STATUS TEXT COMMAND...: on 2 ranks
    local name=$1 expected=$2 text=$3 status
    shift 3
    ranks 2 "$@" >/dev/null 2>"$work/told"
    status=$?
    ok "$name" test $status -eq "$expected" -a "$(grep -c '^error: ' "$work/told")" -eq 1
    ok "$name: says why" grep -qF -- "$text" "$work/told"
}
refused "a batch that 2 do not divide" 2 "cannot be divided among 2 processes; try 32 or 34" "${mlp[@]}" --batch-size 33 --out "$work/odd"
refused "an unknown option" 2 "--batch-sizes" "$train_mlp" --batch-sizes 12
# shellcheck disable=SC2016 # each rank's own variable
refused "ranks with other options" 3 "rank 1 has other data, options, device or checkpoint than rank 0" \
    sh -c '"$@" --lr "$((1 + ${OMPI_COMM_WORLD_RANK:-$PMI_RANK}))"' sh "${mlp[@]}" --out "$work/unlike"
# shellcheck disable=SC2016
refused "one rank with --profile" 3 "rank 1 has other data, options, device or checkpoint than rank 0" \
    sh -c 'if [ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 0 ]; then set -- "$@" --profile; fi; exec "$@"' sh "${mlp[@]}" --out "$work/unlike"
refused "no data" 3 "nowhere" "$train_mlp" --data nowhere
refused "a run's directory" 2 "--resume" "${mlp[@]}" --out "$work/mlp-1"
ranks 2 env OMPI_COMM_WORLD_SIZE=5 "$train_mlp" 2>"$work/told"
ok "another number of processes than MPI connects" grep -q "^error: .* 5 processes, but MPI connects 2 of them" "$work/told"
ok "nothing was left behind" test ! -e "$work/odd"

# ---- a checkpoint of 2 goes on with 1 and 3 ----
ok "a run of 2 to be continued" ranks 2 "${mlp[@]}" --save-every 5 --keep 3 --out "$work/cut"
rm -r "$work"/cut/checkpoints/step_00000010 "$work"/cut/checkpoints/step_0000000[69] "$work/cut/model.safetensors" 2>/dev/null
for n in 1 2 3; do
    cp -r "$work/cut" "$work/cut-$n"
    ok "continued on $n" ranks $n "$train_mlp" --resume "$work/cut-$n" --quiet
    ok "continued on $n: the losses of one" curves_agree "$work/cut-$n" "$work/mlp-1" 1e-5
done
ok "continued on 2: the bits of 2" cmp "$work/cut-2/model.safetensors" "$work/mlp-2/model.safetensors"
finish
