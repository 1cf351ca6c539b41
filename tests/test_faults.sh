#!/usr/bin/env bash
# Every file call and every allocation of a run, of its saving and of its continuation fails once,
# or from then on, or the process dies there, or the power fails: the run ends with its documented
# status, and what is left continues to the same weights. FAULT_STRIDE=1 tries every call,
# the default every 7th.
. "$(dirname "$0")/lib.sh"
stride=${FAULT_STRIDE:-7}
if [ -n "$SANITIZE" ]; then
    skip "faults" "a sanitized program takes no preloaded library"
    finish
fi
gcc -std=gnu11 -D_GNU_SOURCE -O1 -fPIC -shared -o "$work/faults.so" tests/faults.c -ldl || exit 1
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
cd "$work" || exit 1
options=(--data grey --batch-size 16 --steps 6 --save-every 2 --hidden 8 --ema on --optimizer muon
    --augment translate=2 --quiet --threads 1)
"$train_mlp" "${options[@]}" --out reference >/dev/null || exit 1

# begin WHAT: what the fault hits, in `run`
begin() {
    rm -rf run mark disk
    mkdir -p disk/store
    [ "$1" = train ] || cp -r halfway run
}
with_fault() { # with_fault N WHAT MODE KIND: its status
    local command=("$train_mlp" "${options[@]}" --out run)
    [ "$2" = train ] || command=("$train_mlp" --resume run --quiet)
    [ "$3" != kill ] || export FAULT_DISK=$work/disk
    FAULT_AT=$1 FAULT_MODE=$3 FAULT_WHAT=$4 FAULT_ROOT=run FAULT_MARK=$work/mark \
        LD_PRELOAD=$work/faults.so "${command[@]}" >/dev/null 2>err
    local status=$?
    unset FAULT_DISK
    return $status
}
same_as_reference() { cmp -s "$1/model.safetensors" reference/model.safetensors; }

# continues DIR: a run that is left with a checkpoint goes on to the reference's weights, without a
# warning about it, and leaves no temporaries.
continues() {
    [ -n "$(find "$1" -name 'step_*' 2>/dev/null)" ] || return 0
    "$train_mlp" --resume "$1" --quiet >/dev/null 2>warnings || return 1
    [ ! -s warnings ] && same_as_reference "$1" && [ -z "$(find "$1" -name '.tmp-*')" ]
}
complain() { # complain N WHAT MODE KIND STATUS TEXT
    echo "    $4 call $1 of $2, $3: status $5, $6: $(head -n 2 err) $(cat warnings 2>/dev/null)" >>complaints
    bad=$((bad + 1))
}
check() { # check N WHAT MODE KIND STATUS
    if [ "$3" = kill ]; then
        [ "$5" -eq 137 ] || [ ! -e mark ] || complain "$@" "expected another"
        continues disk/all && continues disk/data || complain "$@" "after a power loss"
    elif [ "$5" -eq 0 ]; then
        same_as_reference run || complain "$@" "other weights"
    elif [ "$5" -ne 4 ] || [ "$(grep -c '^error: ' err)" -ne 1 ]; then
        complain "$@" "expected another"
    fi
    continues run || complain "$@" "does not go on"
}

loop() { # loop WHAT MODE KIND
    local n=1 status tried=0
    bad=0
    : >warnings
    while :; do
        begin "$1"
        { with_fault "$n" "$@"; } 2>/dev/null # bash tells who was killed
        status=$?
        check "$n" "$@" "$status"
        [ -e mark ] && [ "$bad" -lt 5 ] || break
        tried=$((tried + 1))
        n=$((n + stride))
    done
    ok "$1: $3 $2, $tried places" test "$bad" -eq 0 -a "$tried" -gt 3
    cat complaints
    : >complaints
}

cp -r reference halfway
rm -r halfway/checkpoints/step_00000006 halfway/model.safetensors halfway/summary.json
: >halfway/checkpoints/.tmp-5-1 # as a killed process leaves them
: >halfway/.tmp-model.safetensors-1-0
touch complaints
for what in train resume; do
    for mode in once always kill; do loop $what $mode file; done
    for mode in once always; do loop $what $mode memory; done
done
finish
