#!/usr/bin/env bash
# kill -9 at random moments of training and saving: what is left continues from the newest
# checkpoint, to the weights and losses of a run that was never interrupted. CRASH_ROUNDS kills, 10
# by default.
. "$(dirname "$0")/lib.sh"
rounds=${CRASH_ROUNDS:-10}
seed=$RANDOM
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
cd "$work" || exit 1
echo "random moments from seed $seed"
RANDOM=$seed
# Muon, moving average and augmentation on; epochs of 8 steps, saved in the middle too.
options=(--data colour --batch-size 8 --steps 40 --width 0.125 --save-every 3 --ema on
    --augment 'flip=alternate,translate=2,cutout=4' --lr 0.05 --quiet)
began=$EPOCHREALTIME
"$train_cnn" "${options[@]}" --threads 2 --out reference >/dev/null || exit 1
milliseconds=$(awk "BEGIN {print int(1000 * ($EPOCHREALTIME - $began)) + 50}")

losses() { sed -E 's/,"step_ms.*//' "$1/log.jsonl"; }
same_run() { # same_run DIR: as the reference
    cmp "$1/model.safetensors" reference/model.safetensors &&
        cmp "$1/best.safetensors" reference/best.safetensors &&
        [ "$(losses "$1")" = "$(losses reference)" ]
}
newest() { find run/checkpoints -name 'step_*' 2>/dev/null | sort | tail -n 1 | sed 's/.*step_0*//'; }

kills=0 saving=0 corrupt=0 lost=0 finished=0 different=0
while [ $kills -lt "$rounds" ]; do
    before=$(newest)
    if [ -n "$before" ]; then
        command=("$train_cnn" --resume run --threads $((RANDOM % 2 + 1)))
    else
        rm -rf run
        command=("$train_cnn" "${options[@]}" --threads $((RANDOM % 2 + 1)) --out run)
    fi
    "${command[@]}" >out 2>err &
    pid=$!
    sleep "$(awk "BEGIN {print $milliseconds * $RANDOM / 32768 / 2000}")"
    { kill -9 $pid && wait $pid; } 2>/dev/null
    status=$?
    [ ! -s err ] || corrupt=$((corrupt + 1)) # a warning of a damaged checkpoint
    if grep -q '^resume' out; then
        [ "$(awk '/^resume/ {print $4}' out)" = "$before" ] || lost=$((lost + 1))
    fi
    if [ $status -eq 137 ]; then
        kills=$((kills + 1))
        [ -z "$(find run -name '.tmp-*' 2>/dev/null)" ] || saving=$((saving + 1))
    fi
    [ -e run/summary.json ] || continue
    finished=$((finished + 1))
    same_run run || different=$((different + 1))
    rm -r run
done
echo "$kills kills, $saving of them while saving; $finished runs came to their end meanwhile"
if [ ! -e run/checkpoints ]; then
    rm -rf run
    "$train_cnn" "${options[@]}" --out run >/dev/null
else
    "$train_cnn" --resume run --quiet >/dev/null 2>err || corrupt=$((corrupt + 1))
    [ ! -s err ] || corrupt=$((corrupt + 1))
fi
ok "SIGKILL at any point, $kills times: every newest checkpoint loads" test $corrupt -eq 0
ok "SIGKILL at any point: nothing lost beyond the last save" test $lost -eq 0
ok "SIGKILL at any point: same weights, best weights and losses as without" same_run run
ok "runs that came to their end meanwhile are the same too" test $different -eq 0
ok "nothing half-written stays" test -z "$(find run -name '.tmp-*')"
finish
