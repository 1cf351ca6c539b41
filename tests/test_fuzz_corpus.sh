#!/usr/bin/env bash
# The fuzzers' first inputs and what they have found, each through its target without libFuzzer.
. "$(dirname "$0")/lib.sh"
export TMPDIR=$work
for corpus in tests/fuzz/corpus/*; do
    name=$(basename "$corpus")
    for input in "$corpus"/*; do
        "$BUILD/tests/fuzz/$name" "$input" >"$work/out" 2>"$work/err" && continue
        miss "$name: $(basename "$input")"
        tail -n 5 "$work/err"
    done
    pass "$name: $(find "$corpus" -type f | wc -l) inputs"
done
finish
