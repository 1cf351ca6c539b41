#!/usr/bin/env bash
# On the emulated CUDA backend, the n-th call of CUDA fails, once or from then on, as on a GPU that
# is lost: training and continuing, which save, end with status 5 and one line, or as if nothing had
# happened, and what is left continues to the same weights. n is 1, 3, 7, 15, ... until a run passes
# untouched. The same, but for continuing, with several steps by one launch (--speedrun).
. "$(dirname "$0")/cuda_on_cpu/lib.sh"
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
base=$work
options=(--data "$base/grey" --batch-size 16 --steps 6 --save-every 2 --hidden 8 --ema on --quiet --threads 1 --device cuda)
train() { emulated asan forward train_mlp "$@" >/dev/null; }
same_as_reference() {
    if [ -e run/speedrun.json ]; then
        cmp -s <(test_losses run) <(test_losses "$base/several")
    else
        cmp -s run/model.safetensors "$base/reference/model.safetensors"
    fi
}
continues() {
    [ -n "$(find run -name 'step_*' 2>/dev/null)" ] || return 0
    train --resume run --quiet 2>warnings || return 1
    [ ! -s warnings ] && same_as_reference && [ -z "$(find run -name '.tmp-*')" ]
}

loop() { # loop WHAT MODE KIND
    local n status tried=0 bad=0 command
    cd "$work" || return
    : >warnings
    for ((n = 1; ; n += n + 1)); do
        rm -rf run mark
        command=("${options[@]}" --out run)
        if [ "$1" = resume ]; then
            cp -r "$base/halfway" run
            command=(--resume run --quiet)
        elif [ "$1" = speedrun ]; then
            command=("${several[@]}" --out run)
        fi
        FAULT_AT=$n FAULT_MODE=$2 FAULT_WHAT=$3 FAULT_MARK=$work/mark train "${command[@]}" 2>err
        status=$?
        if [ $status -eq 0 ]; then
            same_as_reference
        else
            [ -e mark ] && [ $status -eq 5 ] && [ "$(grep -c '^error: ' err)" -eq 1 ] &&
                [ "$(wc -l <err)" -eq 1 ] && continues
        fi || {
            echo "    call $n: status $status: $(head -n 3 err) $(cat warnings)"
            bad=$((bad + 1))
        }
        [ -e mark ] && [ $bad -lt 5 ] || break
        tried=$((tried + 1))
    done
    ok "CUDA calls ($3) fail $2: $1, $tried places up to call $((n / 2))" test $bad -eq 0 -a $tried -gt 0
}

train "${options[@]}" --out "$base/reference" || exit 1
cp -r "$base/reference" "$base/halfway"
rm -r "$base"/halfway/{checkpoints/step_00000006,model.safetensors,summary.json}
several=(--data "$base/grey" --batch-size 16 --steps 24 --hidden 8 --quiet --threads 1 --device cuda --speedrun --seeds 1)
train "${several[@]}" --out "$base/several" || exit 1
for kind in memory copy launch stream event graph; do beside loop speedrun once $kind; done
for what in train resume; do
    for kind in memory copy launch stream event graph device; do beside loop $what once $kind; done
    for kind in memory cuda; do beside loop $what always $kind; done
done
besides
finish
