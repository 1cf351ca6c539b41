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

losses() { sed -E 's/,"step_ms.*//' "$1/log.jsonl"; }
same_run() { # same_run DIR: as the reference
    cmp "$1/model.safetensors" reference/model.safetensors &&
        cmp "$1/best.safetensors" reference/best.safetensors &&
        same_text "$(losses reference)" "$(losses "$1")"
}
newest() { find run/checkpoints -name 'step_*' 2>/dev/null | sort | tail -n 1 | sed 's/.*step_0*//'; }

# Begins or continues `run`, and kills it at some moment; adds to the counts.
kill_once() { # kill_once MILLISECONDS PROGRAM OPTIONS...
    local milliseconds=$1 before pid status
    shift
    before=$(newest)
    if [ -n "$before" ]; then
        "$1" --resume run --threads $((RANDOM % 2 + 1)) >stdout.txt 2>stderr.txt &
    else
        rm -rf run
        "$@" --threads $((RANDOM % 2 + 1)) --out run >stdout.txt 2>stderr.txt &
    fi
    pid=$!
    sleep "$(awk "BEGIN {print $milliseconds * $RANDOM / 32768 / 2000}")"
    { kill -9 $pid && wait $pid; } 2>/dev/null
    status=$?
    [ ! -s stderr.txt ] || corrupt=$((corrupt + 1)) # a warning of a damaged checkpoint
    ! grep -q '^resume' stdout.txt || [ "$(awk '/^resume/ {print $4}' stdout.txt)" = "$before" ] || lost=$((lost + 1))
    if [ $status -eq 137 ]; then
        kills=$((kills + 1))
        [ -z "$(find run -name '.tmp-*' 2>/dev/null)" ] || saving=$((saving + 1))
    fi
    if [ -e run/summary.json ]; then
        finished=$((finished + 1))
        same_run run >/dev/null || different=$((different + 1))
        rm -r run
    fi
}

crash() { # crash NAME ROUNDS PROGRAM OPTIONS...
    local name=$1 wanted=$2 began=$EPOCHREALTIME milliseconds
    shift 2
    kills=0 saving=0 corrupt=0 lost=0 finished=0 different=0
    rm -rf reference run
    "$@" --threads 1 --out reference >/dev/null || { miss "$name: reference" && return; }
    milliseconds=$(awk "BEGIN {print int(1000 * ($EPOCHREALTIME - $began)) + 50}")
    for ((i = 0; kills < wanted && i < 20 * wanted; i++)); do kill_once "$milliseconds" "$@"; done
    [ $kills -eq "$wanted" ] || miss "$name: only $kills of $wanted kills in $i runs"
    echo "$kills kills, $saving of them while saving; $finished runs came to their end meanwhile"
    if [ -n "$(newest)" ]; then
        "$1" --resume run --quiet >/dev/null 2>stderr.txt || corrupt=$((corrupt + 1))
        [ ! -s stderr.txt ] || corrupt=$((corrupt + 1))
    else
        rm -rf run
        "$@" --out run >/dev/null
    fi
    ok "SIGKILL at any point, $name, $kills times: every newest checkpoint loads" test $corrupt -eq 0
    ok "SIGKILL at any point, $name: nothing lost beyond the last save" test $lost -eq 0
    ok "SIGKILL at any point, $name: same weights, best weights and losses as without" same_run run
    ok "SIGKILL at any point, $name: runs that came to their end are the same too" test $different -eq 0
    ok "SIGKILL at any point, $name: nothing half-written stays" test -z "$(find run -name '.tmp-*')"
}

# Muon, moving average and augmentation on; epochs of 8 steps, saved in the middle too.
common=(--data colour --batch-size 8 --save-every 3 --optimizer muon --ema on
    --augment 'flip=alternate,translate=2,cutout=4' --quiet)
crash mlp $((rounds - rounds / 5)) "$train_mlp" "${common[@]}" --hidden 16,16 --steps 90
crash cnn $((rounds / 5)) "$train_airbench" "${common[@]}" --width 0.125 --lr 0.05 --steps 40
finish
