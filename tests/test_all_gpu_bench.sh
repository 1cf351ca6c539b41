#!/usr/bin/env bash
# bench/gpu/run.sh, tiny and on the CPU: every row is there, and what is missing is skipped by name.
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITIZE" ]; then
    skip "bench/gpu" "it is tried without sanitizers"
    finish
fi
python=${PYTHON:-build/bench-venv/bin/python}
[ -x "$python" ] || python=build/venv/bin/python
new='import torch; assert tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 4)'
if ! [ -x "$python" ] || ! "$python" -c "$new" 2>/dev/null; then
    skip "bench/gpu with its peers" "PyTorch 2.4 or newer is missing: bench/setup.sh, or set PYTHON"
    python=none
fi
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
dry_run() { CIFAR10=$1 MNIST=$2 PYTHON=$python bench/gpu/run.sh "$3" --dry-run >"$work/$3"; }
row() { ok "row: $2" grep -qE "^\| $2 \|.*\| $3 \|" "$work/$1"; }

fails "an unknown part" 2 "expected steps or speedrun" bench/gpu/run.sh other
ok "steps" dry_run none none steps
for operation in forward data weight; do row steps "$operation 24->64 @31 pool" ".*"; done
row steps "step C B=4" ".*"
row steps "step MLP B=8192" ".*"
ok "speedrun" dry_run "$work/colour" none speedrun
row speedrun "speedrun" ".*"
row speedrun "cold start" ".*"
ok "no MNIST" grep -q "^skipped: epoch MNIST: no none" "$work/speedrun"
if [ "$python" != none ]; then
    row steps "weight 256->256 @3" "cuDNN .*"
    row steps "step C B=4" "PyTorch bf16.channels_last .*"
    row steps "step MLP B=128" "PyTorch eager .*"
    row speedrun "speedrun" "PyTorch eager .*"
    ok "accuracies" grep -q "^PyTorch eager: mean accuracy .* of 2 seeds" "$work/speedrun"
    curves() {
        PYTHON=$python bench/curves.py --data "$work/colour" --width 0.125 --batch 50 --steps 10 \
            --seeds 2 >"$work/curves"
    }
    ok "curves" curves
    row curves "loss, tenth 10" ".*"
    row curves "test accuracy" ".*"
    ok "nothing else was skipped" test "$(cat "$work/steps" "$work/speedrun" | grep -c ^skipped)" -eq 1
fi
finish
