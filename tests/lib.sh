# shellcheck shell=bash disable=SC2034 # variables are for the scripts
# Sourced by the test scripts: counting, and where the programs are.
#   ok NAME COMMAND...        the command succeeds
#   fails NAME STATUS TEXT COMMAND...   ends with that status and one line on stderr with TEXT
#   skip NAME WHY
#   same_text TEXT TEXT
#   beside COMMAND...         the checks of the command, beside others; besides waits for them
#   finish                    prints the counts and exits
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
BUILD=${BUILD:-build/native}
SANITIZE=${SANITIZE:-}
train_cnn=$PWD/$BUILD/train_cnn
train_airbench=$PWD/$BUILD/train_airbench
train_mlp=$PWD/$BUILD/train_mlp
predict=$PWD/$BUILD/predict
prepare=$PWD/$BUILD/data/prepare
shared=${NN_TEST_DATA:-$PWD/../shared/data} # real data, where a checkout has it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)) && echo "ok $1"; }
miss() { failed=$((failed + 1)) && echo "FAILED $1"; }
skip() { skipped=$((skipped + 1)) && echo "skip $1: $2"; }

ok() {
    local name=$1
    shift
    if "$@" >"$work/out" 2>"$work/err"; then
        pass "$name"
    else
        local status=$? command="$*"
        miss "$name (status $status): ${command:0:300}"
        tail -n 10 "$work/out" "$work/err"
    fi
}

fails() {
    local name=$1 status=$2 text=$3 got
    shift 3
    "$@" >"$work/out" 2>"$work/err"
    got=$?
    if [ $got -eq "$status" ] && grep -qF -- "$text" "$work/err" && [ "$(wc -l <"$work/err")" -eq 1 ]; then
        pass "$name"
    else
        miss "$name: status $got for $status, stderr for '$text': $(cat "$work/err")"
    fi
}

# The difference of two texts; for this diff <() <() would need /proc, which a bare chroot lacks.
same_text() {
    printf '%s\n' "$1" >"$work/text1"
    printf '%s\n' "$2" >"$work/text2"
    diff "$work/text1" "$work/text2"
}

# Checks that take one processor each: beside COMMAND... starts one (ok, or a function that calls it)
# in a process and a folder $work of its own, as many at a time as there are processors. besides waits
# for all, prints and counts.
processors=$(nproc) # a script may set OMP_NUM_THREADS later, which nproc heeds
beside_count=0
beside() {
    local folder=$work/beside-$((++beside_count))
    mkdir "$folder"
    while [ "$(jobs -rp | wc -l)" -ge "$processors" ]; do wait -n; done
    (
        work=$folder passed=0 failed=0 skipped=0
        "$@" >"$folder.log" 2>&1
        echo "$passed $failed $skipped" >"$folder.counts"
    ) &
}
besides() {
    local folder i p f s
    wait
    for ((i = 1; i <= beside_count; i++)); do
        folder=$work/beside-$i
        cat "$folder.log"
        if read -r p f s <"$folder.counts"; then
            passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        else
            miss "a process of checks did not end as it should"
        fi
        rm -rf "$folder" "$folder.log" "$folder.counts"
    done
    beside_count=0
}

# A number from a run's summary.json: number DIR KEY
number() { sed -nE "s/.*\"$2\": ?(-?[0-9.e+-]+).*/\1/p" "$1/summary.json" | head -n 1; }
at_least() { awk "BEGIN {exit !($1 >= $2)}"; }

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}
