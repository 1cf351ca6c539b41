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
ok "trainers include no backend" bash -c '! grep -nE "include \"kernels/(cpu|cuda)" train_*.c train/*'

# ---- what a reader of a trainer meets ----
lines_of() { awk -v start="^[a-z].* $2[(]" '$0 ~ start {on = 1} on {n++} on && /^}/ {on = 0} END {print n + 0}' "$1"; }
reach() { # reach TRAINER FUNCTIONS FILES: no more from its loop and the loader's thread, and no pages
    python3 tests/reach.py "$1:train" data/loader.c:prefetch >"$work/reach" || return
    awk -v functions="$2" -v files="$3" 'NR == 1 {exit $1 > functions || $4 > files}' "$work/reach" &&
        ! grep -E '^[^:]*(html|chart|page|picture)' "$work/reach"
}
for trainer in train_*.c; do
    main=$(lines_of "$trainer" main) train=$(lines_of "$trainer" train)
    ok "$trainer: main() and train() under 60 lines" \
        test "$main" -gt 0 -a "$train" -gt 0 -a $((main + train)) -lt 60
    ok "$trainer: no void *" bash -c "! grep -n 'void \*' $trainer"
    if command -v python3 >/dev/null; then
        ok "$trainer: its loop reaches few functions" reach "$trainer" 215 29
    else
        skip "$trainer: what its loop reaches" "no python3"
    fi
done
finish
