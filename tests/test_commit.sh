#!/usr/bin/env bash
# How data/prepare puts a data set into its place: what others put there meanwhile stays and is told,
# and wherever the program is killed or the system refuses, the place holds what it held or the whole
# new data set.
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITIZE" ]; then
    skip "commit" "a sanitized program takes no preloaded library"
    finish
fi
gcc -std=gnu11 -D_GNU_SOURCE -O1 -fPIC -shared -o "$work/fault_shim.so" tests/fault_shim.c -ldl || exit 1
stride=${FAULT_STRIDE:-4} # of the calls at which it is killed
here=$work/here           # lib.sh has names of its own in $work
mkdir -p "$here/cifar" && cp -r tests/golden/grey "$here/idx" && cd "$here" || exit 1
head -c 6146 /dev/zero >cifar/test_batch.bin
for i in 1 2 3 4 5; do
    for k in 0 1; do printf "\\x$(printf %02x $((2 * i - 2 + k)))" && head -c 3072 /dev/zero; done >cifar/data_batch_$i.bin
done
printf '%s\n' a b c d e f g h i j >cifar/batches.meta.txt
"$prepare" idx idx --out old >/dev/null && "$prepare" cifar cifar --out new --shard-bytes 9000 >/dev/null || exit 1

# preloaded N CALL COMMAND...: with the environment that fault_shim.c describes
preloaded() {
    local n=$1 call=$2
    shift 2
    rm -f hit
    { # bash says "Killed"
        FAULT_CALL=$call FAULT_AT=$n FAULT_REPORT=$PWD/hit \
            timeout 60 env LD_PRELOAD="$work/fault_shim.so" "$@" >out.txt 2>err.txt
    } 2>/dev/null
}
make=("$prepare" cifar cifar --out "$here/out" --shard-bytes 9000)
same() { diff -r "$1" "$2" >/dev/null; }
clear_place() {
    rm -rf out .out.tmp .out.tmp.old
    case $1 in
    empty) mkdir out ;;
    old) cp -r old out ;;
    esac
}

# ---- what others put there ------------------------------------------------------------------------
# The last rename is the commit's.
clear_place none
last=0
until preloaded $((last + 1)) rename "${make[@]}" && [ ! -e hit ]; do
    clear_place none
    last=$((last + 1))
done

# appears NAME PLACE OPTIONS COMMAND FILE: the command, run before the last rename, makes FILE, which stays
appears() {
    local name=$1 place=$2 options=$3 command=$4 file=$5 status
    clear_place "$place"
    # shellcheck disable=SC2086 # options are words
    FAULT_DO=$command preloaded $last rename "${make[@]}" $options
    status=$?
    if [ $status -eq 2 ] && [ -e hit ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -q "^error: .*$PWD/out: " err.txt &&
        [ "$(cat "$file")" = mine ] && [ ! -e .out.tmp ] && [ ! -e .out.tmp.old ]; then
        pass "$name"
    else
        miss "$name: status $status: $(cat err.txt) $(ls -A out .out.tmp .out.tmp.old 2>&1)"
    fi
}
for FAULT_PLAIN_RENAME in '' 1; do
    export FAULT_PLAIN_RENAME
    [ -n "$FAULT_PLAIN_RENAME" ] || unset FAULT_PLAIN_RENAME
    how=${FAULT_PLAIN_RENAME:+, plain renames}
    appears "a file in a new directory$how" none '' 'mkdir out; echo mine >out/mine' out/mine
    appears "a file in an empty directory$how" empty '' 'echo mine >out/mine' out/mine
    appears "a file at the place$how" none '' 'echo mine >out' out
    appears "a data set$how" none '' 'cp -r old out; echo mine >out/bad_files.tsv' out/bad_files.tsv
    appears "with --force: a file in a new directory$how" none --force 'mkdir out; echo mine >out/mine' out/mine
    appears "with --force: a file in the old data set$how" old --force 'echo mine >out/mine' out/mine
    [ "$(rm out/mine && ls out)" = "$(ls old)" ] && pass "which is whole$how" || miss "which is whole$how: $(ls out)"
done
unset FAULT_PLAIN_RENAME

# Another run has the directory open when this one finishes it.
clear_place none
cp -r old .out.tmp
FAULT_DO='mv .out.tmp out' preloaded 1 flock "${make[@]}"
[ $? -eq 4 ] && [ -e hit ] && same out old && pass "a data set that was just finished" || miss "a data set that was just finished: $(cat err.txt) $(ls out)"

clear_place none
mkdir .out.tmp && echo mine >.out.tmp/mine && touch .out.tmp/x-train-00000.part
fails "files of others under the temporary name" 2 "/.out.tmp: holds other files (mine)" "${make[@]}"
[ "$(cat .out.tmp/mine)" = mine ] && pass "they stay" || miss "they stay"
clear_place none
cp -r old .out.tmp.old && mkdir out && echo mine >out/mine
fails "the old data set beside a place that others took" 2 "/out: holds no data set; the one that was there is" "${make[@]}"
same .out.tmp.old old && [ -e out/mine ] && pass "both stay" || miss "both stay: $(ls -A . out)"
clear_place old
touch out/x-ray.nns
fails "a name that is nearly ours" 2 "holds other files (x-ray.nns)" "${make[@]}" --force
clear_place none
ln -s nowhere out
fails "a dangling link" 4 "cannot write there" "${make[@]}"
[ -L out ] && pass "it stays" || miss "it stays"

# ---- killed, a full disk, a file-size limit -------------------------------------------------------
# at_every_call NAME PLACE ENVIRONMENT...: kills there; the next run makes the data set
at_every_call() {
    local name=$1 place=$2 n bad=0 left
    shift 2
    for ((n = 1; ; n += stride)); do
        clear_place "$place"
        FAULT_DO="kill" preloaded $n file env "$@" "${make[@]}" --force
        [ -e hit ] || break
        if [ -e .out.tmp.old ] && [ ! -e out ]; then left=.out.tmp.old; else left=out; fi
        case $place in
        none) [ ! -e out ] || same out new ;;
        empty) [ -z "$(ls -A out)" ] || same out new ;;
        old) same $left old || same $left new ;;
        esac || { bad=$((bad + 1)) && echo "    killed at call $n: $(ls -A . out)"; }
        if [ $left != out ]; then
            "${make[@]}" 2>err.txt
            [ $? -eq 2 ] && same out old && [ ! -e .out.tmp.old ] || { bad=$((bad + 1)) && echo "    call $n: the old one is lost"; }
        fi
        "${make[@]}" --force >out.txt 2>err.txt && same out new && [ ! -e .out.tmp ] && [ ! -e .out.tmp.old ] ||
            { bad=$((bad + 1)) && echo "    after call $n: $(cat err.txt) $(ls -A .)"; }
    done
    if [ $bad -eq 0 ] && [ $n -gt 30 ]; then pass "killed at $((n / stride)) calls: $name"; else miss "killed: $name: $bad of $n"; fi
}
at_every_call "a new place" none true=1
at_every_call "an empty directory" empty true=1
at_every_call "over an old one" old true=1
at_every_call "over an old one, plain renames" old FAULT_PLAIN_RENAME=1

# A limit on a file's size, in KiB: the shards have 2 MiB and some.
bad=0 refused=0
for limit in 0 4 8 100 2047 2048 2049 2054 2057 2058 3000; do
    clear_place old
    err=$( (ulimit -f $limit && exec "${make[@]}" --force) 2>&1 >/dev/null)
    status=$?
    case $status in
    0) same out new ;;
    4) refused=$((refused + 1)) && same out old && [[ $err == 'error: '*'File too large' ]] ;;
    *) false ;;
    esac && [ ! -e .out.tmp ] || { bad=$((bad + 1)) && echo "    limit $limit: status $status: $err"; }
done
[ $bad -eq 0 ] && [ $refused -gt 2 ] && [ $status -eq 0 ] && pass "a limit on the file's size is a full disk" || miss "limits: $bad wrong, $refused refused"
finish
