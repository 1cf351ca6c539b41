#!/usr/bin/env bash
# Runs the tests and counts: tests/run.sh test | test-all [NAME...], all or those named (test_cli).
# Called by make, with BUILD (where the programs are) and SANITIZE in the environment.
#
# A test is a program build/.../tests/test_* (cmocka) or a script tests/test_*.sh, whose last line
# is "N passed, N failed, N skipped". Scripts named test_all_*.sh belong to test-all alone.
set -u
cd "$(dirname "$0")/.." || exit 1
which=${1:-test}
only=" ${*:2} "
export BUILD=${BUILD:-build/native} SANITIZE=${SANITIZE:-}
# They run one after the other: a make in one of them has no part in the jobs of the make above.
MAKEFLAGS=$(sed -E 's/ *-j[0-9]*( --jobserver-auth=[^ ]*)?//' <<<"${MAKEFLAGS:-}") && export MAKEFLAGS
export UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=detect_stack_use_after_return=0
log=$BUILD/tests/log
mkdir -p "$log"
passed=0 failed=0 skipped=0

# From a log to "passed failed skipped": a script's last line, or cmocka's own counts.
counts() {
    sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p
             s/^\[  PASSED  \] ([0-9]+) test\(s\)\.?$/\1 0 0/p
             s/^\[  SKIPPED \] ([0-9]+) test\(s\).*$/0 0 \1/p
             s/^\[  FAILED  \] .*: ([0-9]+) test\(s\).*$/0 \1 0/p' "$1" |
        awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}'
}

# The lines of a log that tell what failed, without those that tell what did not.
why() { grep -vE '^(ok |\[ +(OK|RUN) +\] )' "$1" | tail -n 40 | sed 's/^/         | /'; }

run() { # run NAME COMMAND...
    local name=$1 began=$EPOCHREALTIME status p f s
    shift
    [ "$only" = "  " ] || [[ $only = *" $name "* ]] || return
    "$@" >"$log/$name.log" 2>&1 </dev/null
    status=$?
    read -r p f s <<<"$(counts "$log/$name.log")"
    if [ $status -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    if [ $status -eq 0 ] && [ $((p + f + s)) -eq 0 ]; then f=1; fi # a test that tested nothing
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-6s %-22s %3d passed %s %6.1f s\n' "$([ "$f" -eq 0 ] && echo ok || echo FAILED)" "$name" "$p" \
        "$([ "$s" -gt 0 ] && echo "$s skipped")" "$(awk "BEGIN {print $EPOCHREALTIME - $began}")"
    grep -hE '^skip' "$log/$name.log" | sed 's/^/         /'
    if [ "$f" -ne 0 ]; then why "$log/$name.log"; fi
}

for source in tests/test_*.c; do
    name=$(basename "$source" .c)
    run "$name" "$BUILD/tests/$name"
done
for script in tests/test_*.sh; do
    name=$(basename "$script" .sh)
    case $name in test_all_*) [ "$which" = test-all ] || continue ;; esac
    run "$name" "$script"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
