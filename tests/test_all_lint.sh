#!/usr/bin/env bash
# clang-tidy (.clang-tidy says what) and cppcheck over what reads files and the command line.
. "$(dirname "$0")/lib.sh"
sources=(data/*.c runtime/*.c timing/*.c)
if command -v clang-tidy >/dev/null; then
    for source in "${sources[@]}"; do
        ok "clang-tidy $source" clang-tidy -quiet "$source" -- -std=gnu11 -D_GNU_SOURCE -I. -march=native -Wno-unknown-warning-option
    done
else
    skip "clang-tidy" "not installed"
fi
if command -v cppcheck >/dev/null; then
    # Suppressed: it takes what fail() returns for 0, and a loop from n - 1 down for one to -1.
    ok "cppcheck" cppcheck --enable=warning,performance,portability --error-exitcode=1 --quiet --inline-suppr \
        --std=c11 -I. --suppress=missingIncludeSystem --suppress=nullPointerArithmeticRedundantCheck \
        --suppress=negativeIndex:runtime/init.c --suppress=ctunullpointer "${sources[@]}"
else
    skip "cppcheck" "not installed"
fi
finish
