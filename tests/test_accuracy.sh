#!/usr/bin/env bash
# Whole trainings: the embedded set, MNIST, and one batch learnt by heart.
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITIZE" ]; then
    skip "whole trainings" "they take too long under sanitizers"
    finish
fi

ok "airbench: embedded set above 95%" "$train_airbench" --out "$work/airbench" --quiet --target-accuracy 0.95
ok "cnn: embedded set above 95%" "$train_cnn" --out "$work/cnn" --quiet --target-accuracy 0.95
ok "mlp: embedded set above 80%" "$train_mlp" --epochs 5 --out "$work/mlp" --quiet --target-accuracy 0.8
ok "linear: embedded set trains" "$train_mlp" --hidden none --epochs 5 --out "$work/linear" --quiet
ok "linear: embedded set below 70%" at_least 0.7 "$(number "$work/linear" test_accuracy)"
for optimizer in sgd adamw muon; do
    ok "cnn: $optimizer learns" "$train_cnn" --net plain --epochs 3 --optimizer $optimizer --out "$work/s-$optimizer" --quiet --target-accuracy 0.6
    ok "airbench: $optimizer learns" "$train_airbench" --width 0.125 --epochs 3 --optimizer $optimizer --out "$work/a-$optimizer" --quiet --target-accuracy 0.5
    ok "mlp: $optimizer learns" "$train_mlp" --epochs 3 --optimizer $optimizer --out "$work/l-$optimizer" --quiet --target-accuracy 0.6
done
"$prepare" cifar tests/golden/colour --out "$work/few" >/dev/null
"$train_cnn" --data "$work/few" --width 0.5 --batch-size 64 --steps 60 --augment none --label-smoothing 0 --out "$work/heart" --quiet >/dev/null
ok "cnn: learns 64 random images by heart" at_least 0.05 "$(sed -nE 's/.*"loss": ?([0-9.e+-]+).*/\1/p' "$work/heart/log.jsonl" | tail -n 1)"

mnist=$shared/mnist
if [ -d "$mnist" ]; then
    ok "mnist: prepare" "$prepare" idx "$mnist" --out "$work/mnist"
    ok "mnist: mlp, 5 epochs, 98.0%" "$train_mlp" --data "$work/mnist" --epochs 5 --out "$work/m1" --quiet --target-accuracy 0.98
    ok "mnist: cnn, 98.8%" "$train_cnn" --data "$work/mnist" --out "$work/m2" --quiet --target-accuracy 0.988
else
    skip "mnist" "no $mnist (NN_TEST_DATA names the folder that holds mnist/)"
fi

cifar=$shared/cifar10/cifar10-jpeg.tar.xz
if [ -f "$cifar" ] && command -v xz >/dev/null; then
    mkdir "$work/jpeg"
    tar -xJf "$cifar" -C "$work/jpeg"
    root=$(dirname "$(find "$work/jpeg" -maxdepth 2 -name train -type d)")
    ok "cifar10: prepare 60,000 JPEGs" "$prepare" folder "$root" --out "$work/cifar10"
    ok "cifar10: a quarter of the width, 2 epochs, 65%" "$train_airbench" --data "$work/cifar10" --width 0.25 --epochs 2 --batch-size 500 --tta 0 --out "$work/c1" --quiet --target-accuracy 0.65
else
    skip "cifar10" "no $cifar, or no xz"
fi
finish
