#!/usr/bin/env bash
# clang-tidy (.clang-tidy says what) and cppcheck over what reads files and the command line,
# and what speaks with other processes.
. "$(dirname "$0")/lib.sh"
sources=(base/*.c data/*.c data/*/*.c train/*.c pages/*.c kernels/distributed.c kernels/launch_counts.c)
# What of mpicc's command finds mpi.h.
read -ra mpi < <(mpicc -show 2>/dev/null | grep -oE -- '-I[^ ]+' | tr '\n' ' ')
if command -v clang-tidy >/dev/null; then
    for source in "${sources[@]}" base/mpi/*.c; do
        if [[ $source == base/mpi/* && ${#mpi[@]} -eq 0 ]]; then
            skip "clang-tidy $source" "no MPI"
            continue
        fi
        beside ok "clang-tidy $source" clang-tidy -quiet "$source" -- -std=gnu11 -D_GNU_SOURCE -I. "${mpi[@]}" -march=native \
            -Wno-unknown-warning-option
    done
else
    skip "clang-tidy" "not installed"
fi
if command -v cppcheck >/dev/null; then
    # Suppressed: it takes what fail() returns for 0, a loop from n - 1 down for one to -1, and an
    # Error whose address is stored for one that is read.
    beside ok "cppcheck" cppcheck --enable=warning,performance,portability --error-exitcode=1 --quiet --inline-suppr \
        --std=c11 -I. --suppress=missingIncludeSystem --suppress=nullPointerArithmeticRedundantCheck \
        --suppress=negativeIndex:train/init.c --suppress=ctunullpointer --suppress=ctuuninitvar "${sources[@]}" base/mpi/*.c
else
    skip "cppcheck" "not installed"
fi
besides
finish
