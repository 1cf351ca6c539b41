#!/usr/bin/env bash
# Every allocation, file call and process that prepare asks for fails once, or from then on: the run
# ends with status 4, one line and nothing left behind, or the data set is the same as ever. Where only
# its name cannot be made to last, both: status 4, and the data set stays.
# FAULT_STRIDE=1 tries every call, the default every 5th allocation and read.
. "$(dirname "$0")/lib.sh"
stride=${FAULT_STRIDE:-5}
if [ -n "$SANITIZE" ]; then
    skip "faults" "a sanitized program takes no preloaded library"
    finish
fi
gcc -std=gnu11 -D_GNU_SOURCE -O1 -fPIC -shared -o "$work/fault_shim.so" tests/fault_shim.c -ldl || exit 1
mkdir -p "$work"/photos/{train,test}/{cat,dog} "$work/idx" "$work/cifar"
seeds=tests/fuzz/corpus/image
for name in png-2-8 jpeg-1-0 bmp-24-40; do
    for class in train/cat train/dog test/cat test/dog; do
        tail -c +2 $seeds/seed-$name >"$work/photos/$class/$name.png" # the name's ending does not matter
    done
done
cp tests/golden/grey/*ubyte* "$work/idx" || exit 1
cd "$work" || exit 1
echo text >photos/train/cat/notes.txt
head -c 6146 /dev/zero >cifar/test_batch.bin
for i in 1 2 3 4 5; do
    for k in 0 1; do printf "\\x$(printf %02x $((2 * i - 2 + k)))" && head -c 3072 /dev/zero; done >cifar/data_batch_$i.bin
done
printf '%s\n' a b c d e f g h i j >cifar/batches.meta.txt
sources=("folder photos --size 6x6 --workers 2" "idx idx" "cifar cifar --shard-bytes 9000")

# fault N CALL ON ERRNO COMMAND...: its status
fault() {
    local n=$1 call=$2 on=$3 errno=$4
    shift 4
    rm -f hit
    FAULT_CALL=$call FAULT_AT=$n FAULT_ON=$on FAULT_ERRNO=$errno FAULT_REPORT=$PWD/hit \
        timeout 60 env LD_PRELOAD="$PWD/fault_shim.so" "$prepare" "$@" >out.txt 2>err.txt
}

unsynced() { # unsynced STATUS
    [ "$1" -eq 4 ] && grep -q '^error: .*out: is complete, but' err.txt && unsynced=$((unsynced + 1))
}
unsynced=0

# Loops until a run passes untouched.
loop() { # CALL ON ERRNO STEP COMMAND...
    local call=$1 on=$2 errno=$3 step=$4 n status bad=0 runs=0
    shift 4
    for ((n = 1; ; n += step)); do
        rm -rf out
        fault $n "$call" "$on" "$errno" "$@" --out out
        status=$?
        runs=$((runs + 1))
        if [ -e out ] && { { [ $status -ne 0 ] && ! unsynced $status; } || ! diff -rq out "reference-$1" >/dev/null; }; then
            echo "    call $n: status $status, another data set: $(cat err.txt)"
            bad=$((bad + 1))
        elif [ ! -e out ] && { [ $status -ne 4 ] || [ "$(grep -c '^error: ' err.txt)" -ne 1 ]; }; then
            echo "    call $n: status $status: $(cat err.txt)"
            bad=$((bad + 1))
        elif [ -e .out.tmp ]; then
            echo "    call $n: status $status, .out.tmp is left"
            bad=$((bad + 1))
        fi
        rm -rf .out.tmp
        [ -e hit ] || break
        [ $bad -lt 5 ] || break
    done
    if [ $bad -eq 0 ] && [ $runs -gt 1 ] && [ $status -eq 0 ]; then
        pass "$1: $call fails $([ "$on" = 1 ] && echo 'from then on' || echo once): $runs runs"
    else
        miss "$1: $call, on $on: $bad of $runs runs, the last one's status $status"
    fi
}

"$prepare" cifar cifar --out reference-cifar --shard-bytes 1000000 >/dev/null
# A data set that is replaced: the old one stays until the new one is there.
"$prepare" idx idx --out old >/dev/null
for call in alloc open read write fsync rename close; do
    bad=0
    for ((n = 1; ; n++)); do
        rm -rf out .out.tmp*
        cp -r old out
        fault $n $call 1 28 cifar cifar --out out --force --shard-bytes 1000000
        status=$?
        { [ $status -eq 0 ] || unsynced $status; } && kept=reference-cifar || kept=old
        diff -rq out $kept >/dev/null || bad=$((bad + 1))
        [ ! -e .out.tmp ] && [ ! -e .out.tmp.old ] || bad=$((bad + 1))
        [ -e hit ] || break
    done
    if [ $bad -eq 0 ] && [ $n -gt 1 ]; then pass "--force: $call fails: $n runs"; else miss "--force: $call: $bad"; fi
done
rm -rf out
for source in "${sources[@]}"; do
    read -ra command <<<"$source"
    rm -rf "reference-${command[0]}"
    "$prepare" "${command[@]}" --out "reference-${command[0]}" >/dev/null 2>&1 || miss "reference: $source"
    for on in 0 1; do
        loop alloc $on 12 "$stride" "${command[@]}"
        loop open $on 24 1 "${command[@]}"  # EMFILE
        loop read $on 5 "$stride" "${command[@]}"
        loop write $on 28 1 "${command[@]}" # ENOSPC
        loop fsync $on 5 1 "${command[@]}"
        loop rename $on 5 1 "${command[@]}"
        loop close $on 5 1 "${command[@]}"
        loop mkdir $on 13 1 "${command[@]}"
        [ "${command[0]}" = folder ] || continue
        loop fork $on 11 1 "${command[@]}" # EAGAIN
        loop mmap $on 12 1 "${command[@]}"
        loop socketpair $on 24 1 "${command[@]}"
    done
done

rm -rf out
fault 1 seccomp 1 22 folder photos --size 6x6 --workers 2 --out out
if [ $? -eq 0 ] && grep -q '^warning: this system has no seccomp' err.txt && diff -rq out reference-folder >/dev/null; then
    pass "no seccomp: a warning and the same data set"
else
    miss "no seccomp: $(cat err.txt)"
fi
if [ $unsynced -ge 14 ]; then # open and fsync: with --force, and of 3 sources once and from then on
    pass "a name that does not last is no success"
else
    miss "a name that does not last is no success: $unsynced of 14 runs"
fi
(ulimit -v 1500000 && exec "$prepare" folder photos --size 6x6 --out none) 2>err.txt
if [ $? -eq 4 ] && grep -q 'address space' err.txt; then pass "no address space"; else miss "no address space: $(cat err.txt)"; fi
finish
