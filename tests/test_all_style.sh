#!/usr/bin/env bash
# Layout and lint: clang-format, shellcheck, no line over 100 columns, the promises of STYLE.
. "$(dirname "$0")/lib.sh"
sources=$(find . -path ./build -prune -o \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) -print)
scripts=$(find scripts tests bench .ci -name '*.sh' -o -name '*.sbatch' -o -path .ci/run)

# shellcheck disable=SC2086 # lists of names without spaces
if command -v clang-format >/dev/null; then
    ok "clang-format changes nothing" clang-format --dry-run -Werror $sources
else
    skip "layout" "no clang-format"
fi
# shellcheck disable=SC2086
if command -v shellcheck >/dev/null; then
    ok "shellcheck is silent" shellcheck -x -P tests -S warning $scripts
else
    skip "shell scripts" "no shellcheck"
fi
# shellcheck disable=SC2086
ok "no line over 100 columns" test -z "$(awk 'length > 100 {print FILENAME ":" FNR}' $sources)"
ok "no #ifdef in a trainer" bash -c '! grep -nE "^#if" train_*.c'
ok "trainers include no backend" bash -c '! grep -nE "include \"kernels/(cpu|cuda)" train_*.c runtime/*'
finish
