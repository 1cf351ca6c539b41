#!/usr/bin/env bash
# Pictures in which channels are equal, zero, or all there is is black: every convolutional network
# learns what there is, and the summary calls chance by its name.
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITIZE" ]; then
    skip "degenerate pictures" "whole trainings take too long under sanitizers"
    finish
fi
if ! command -v python3 >/dev/null; then
    skip "degenerate pictures" "no python3, which draws them"
    finish
fi
python3 tests/shapes.py "$work/shapes"
for set in grey green black; do
    ok "$set: packed" "$prepare" folder "$work/shapes/$set" --out "$work/$set"
done
for set in grey green; do
    ok "train_cnn learns $set" "$train_cnn" --data "$work/$set" --batch-size 50 --epochs 4 --out "$work/cnn-$set" --target-accuracy 0.95 --quiet
    ok "train_airbench learns $set" "$train_airbench" --data "$work/$set" --width 0.5 --batch-size 50 --epochs 4 --out "$work/airbench-$set" --target-accuracy 0.95 --quiet
done
chance() { # chance COMMAND...: it trains, and says that the result is chance
    "$@" --quiet >"$work/said" && cat "$work/said" &&
        grep -q "^result   test accuracy 25.00%, no better than chance (25.00%)" "$work/said"
}
ok "train_cnn on black" chance "$train_cnn" --data "$work/black" --epochs 2 --out "$work/cnn-black"
ok "train_airbench on black" chance "$train_airbench" --data "$work/black" --width 0.25 --epochs 2 --out "$work/airbench-black"
ok "chance in the summary" test "$(number "$work/cnn-black" chance_accuracy)" = 0.25
finish
