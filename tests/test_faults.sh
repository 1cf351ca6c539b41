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
base=$work # a loop has a $work of its own, and works in it
cd "$base" || exit 1
# Beside this trainer nothing draws pages: that goes on for a moment where the trainer was killed.
mkdir -p bin/pages && cp "$train_mlp" bin && ln -s "$(type -P true)" bin/pages/runs
train_mlp=$base/bin/train_mlp
options=(--data "$base/grey" --batch-size 16 --steps 6 --save-every 2 --hidden 8 --ema on --optimizer muon
    --augment translate=2 --quiet --threads 1)
"$train_mlp" "${options[@]}" --out reference >/dev/null || exit 1

# begin WHAT: what the fault hits, in `run`
begin() {
    rm -rf run mark disk
    mkdir -p disk/store
    [ "$1" = train ] || cp -r "$base/halfway" run
}
with_fault() { # with_fault N WHAT MODE KIND: its status
    local command=("$train_mlp" "${options[@]}" --out run)
    [ "$2" = train ] || command=("$train_mlp" --resume run --quiet)
    [ "$3" != kill ] || export FAULT_DISK=$work/disk
    FAULT_AT=$1 FAULT_MODE=$3 FAULT_WHAT=$4 FAULT_ROOT=run FAULT_MARK=$work/mark \
        LD_PRELOAD=$base/faults.so "${command[@]}" >/dev/null 2>err
    local status=$?
    unset FAULT_DISK
    return $status
}
same_as_reference() { cmp -s "$1/model.safetensors" "$base/reference/model.safetensors"; }

# continues DIR: a run that is left with a checkpoint goes on to the reference's weights, without a
# warning about it, and leaves no temporaries.
continues() {
    [ -n "$(find "$1" -name 'step_*' 2>/dev/null)" ] || return 0
    "$train_mlp" --resume "$1" --quiet >/dev/null 2>warnings || return 1
    [ ! -s warnings ] && same_as_reference "$1" && [ -z "$(find "$1" -name '.tmp-*')" ]
}
# Step N + 1 is logged once the checkpoint of step N is complete.
keeps() { # keeps DIR: the checkpoints that were complete when the process died
    local last newest
    last=$(sed -n 's/.*"step":\([0-9]*\),.*/\1/p' run/log.jsonl 2>/dev/null | tail -n 1)
    newest=$(find "$1" -name 'step_*' 2>/dev/null | sort | tail -n 1 | sed 's/.*step_0*//')
    [ "${newest:-0}" -ge $(((${last:-1} - 1) / 2 * 2)) ]
}
complain() { # complain N WHAT MODE KIND STATUS TEXT
    echo "    $4 call $1 of $2, $3: status $5, $6: $(head -n 2 err) $(cat warnings 2>/dev/null)" >>complaints
    bad=$((bad + 1))
}
check() { # check N WHAT MODE KIND STATUS
    if [ "$3" = kill ] && [ -e mark ]; then
        [ "$5" -eq 137 ] || complain "$@" "expected another"
        keeps run || complain "$@" "a checkpoint is lost"
        keeps disk/all && keeps disk/data || complain "$@" "a checkpoint is lost with the power"
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
    cd "$work" || return
    bad=0
    : >warnings
    : >complaints
    while :; do
        begin "$1"
        { with_fault "$n" "$@"; } 2>/dev/null # bash tells who was killed
        status=$?
        check "$n" "$@" "$status"
        [ -e mark ] && [ "$bad" -lt 5 ] || break
        tried=$((tried + 1))
        n=$((n + stride))
    done
    local name="$3 call fails $2"
    [ "$2" != kill ] || name="SIGKILL or power loss at any point"
    ok "$name: $1, $tried places" test "$bad" -eq 0 -a "$tried" -gt 3
    cat complaints
}

# Saving is tried once more; a disk that stays full leaves the checkpoint before and no temporaries.
saving() { # saving MODE N [ERRNO]: the fault hits the checkpoint of step 4
    rm -rf run mark
    FAULT_AT=$2 FAULT_MODE=$1 FAULT_ERRNO=${3:-28} FAULT_ROOT=run/checkpoints/.tmp-step_00000004 FAULT_MARK=$work/mark \
        LD_PRELOAD=$base/faults.so "$train_mlp" "${options[@]}" --out run >/dev/null 2>errors
}
io_error() {
    local n tried=0 bad=0
    cd "$work" || return
    for ((n = 1; ; n += stride)); do
        saving once $n 5 && same_as_reference run || bad=$((bad + 1))
        [ -e mark ] && [ $bad -eq 0 ] || break
        tried=$((tried + 1))
    done
    ok "EIO at a checkpoint: tried again, $tried places" test $bad -eq 0 -a $tried -gt 4
}
full_disk() { # full_disk NAME ERRNO
    local n status tried=0 bad=0
    cd "$work" || return
    for ((n = 1; ; n += stride)); do
        saving full $n "$2"
        status=$?
        [ -e mark ] || break
        [ $status -eq 4 ] && grep -q "^error: no checkpoint of step 4: .*; it needs about [0-9.]* MB" errors &&
            [ "$(ls -A run/checkpoints)" = step_00000002 ] && continues run || bad=$((bad + 1))
        [ $bad -eq 0 ] || break
        tried=$((tried + 1))
    done
    ok "$1 at a checkpoint: status 4 with the bytes needed, the one before is kept, $tried places" \
        test $bad -eq 0 -a $tried -gt 2
}
beside io_error
beside full_disk "disk full" 28
beside full_disk "quota" 122

cp -r reference halfway
rm -r halfway/checkpoints/step_00000006 halfway/model.safetensors halfway/summary.json
: >halfway/checkpoints/.tmp-5-1 # as a killed process leaves them
: >halfway/.tmp-model.safetensors-1-0
for what in train resume; do
    for mode in once always kill; do beside loop $what $mode file; done
    for mode in once always; do beside loop $what $mode memory; done
done
besides
finish
