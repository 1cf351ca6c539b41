#!/usr/bin/env bash
# predict on 1,000 JPEGs of CIFAR-10's test set, and with weights that PyTorch wrote.
. "$(dirname "$0")/lib.sh"
python=$PWD/build/venv/bin/python

# ---- 1,000 JPEGs: the accuracy of --eval-only. The speed is printed, counted in the time that two
# processors spend, so that other programs on the machine do not matter ----
jpegs=$shared/cifar10/cifar10-jpeg.tar.xz
if [ -n "$SANITIZE" ]; then
    skip "1,000 JPEGs" "training takes too long under sanitizers"
elif [ ! -f "$jpegs" ] || ! command -v xz >/dev/null; then
    skip "1,000 JPEGs" "no $jpegs (NN_TEST_DATA names the folder that holds cifar10/), or no xz"
else
    tar -xJf "$jpegs" -C "$work"
    root=$(dirname "$(find "$work" -maxdepth 2 -name test -type d)")
    # Of the test set a tenth is tested on, and the rest is trained on: that prepares in a moment.
    for class in "$root"/test/*; do
        mkdir -p "$work/set/train" "$work/set/test/$(basename "$class")"
        find "$class" -name '*.jpg' | sort | head -n 100 | xargs mv -t "$work/set/test/$(basename "$class")"
        mv "$class" "$work/set/train"
    done
    ok "prepare" "$prepare" folder "$work/set" --out "$work/cifar"
    same() { # same NAME TRAINER OPTIONS...: trains; then predict and --eval-only agree
        local name=$1 trainer=$2 expected
        shift 2
        "$trainer" --data "$work/cifar" --out "$work/$name" --quiet "$@" >/dev/null || return 1
        expected=$("$trainer" --init "$work/$name/best.safetensors" --data "$work/cifar" --eval-only) || return 1
        { time "$predict" "$work/$name" "$work/set/test" >"$work/$name.txt"; } 2>"$work/$name.seconds" || return 1
        echo "$expected"
        tail -n 3 "$work/$name.txt"
        [[ $expected == "test accuracy $(awk '$1 == "all" && $2 == 1000 {print $4}' "$work/$name.txt"), "* ]]
    }
    TIMEFORMAT='%U %S'
    speed() { awk '{printf "%.0f", 1000 / (($1 + $2) / 2)}' "$work/$1.seconds"; }
    ok "airbench: the accuracy of --eval-only" same airbench "$train_airbench" --width 0.25 --epochs 3 --batch-size 250
    echo "airbench, six views: $(speed airbench) pictures a second on two processors"
    ok "plain: the accuracy of --eval-only" same plain "$train_cnn" --net plain --epochs 2
    echo "plain: $(speed plain) pictures a second on two processors"
    ok "mlp: the accuracy of --eval-only" same mlp "$train_mlp" --epochs 2
    echo "mlp: $(speed mlp) pictures a second on two processors"
fi

# ---- PyTorch: the same probabilities, with metadata and without ----
if ! "$python" -c 'import torch, safetensors' 2>/dev/null; then
    skip "weights from PyTorch" "build/venv has no torch and safetensors; ./scripts/setup.sh --dev installs them"
    finish
fi
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
picture=$work/picture.bmp
{
    printf 'BM\x36\x0c\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x20\0\0\0\x20\0\0\0\1\0\x18\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    head -c 3072 tests/golden/colour/data_batch_1.bin
} >"$picture"
agrees() { # agrees FILE: its five classes and their percentages, to the last digit shown
    head -n 5 "$work/torch.txt" | awk 'NR == FNR {want[NR] = $2; share[NR] = 100 * $1; n = NR; next}
        FNR > 1 {found++; off = $1 - share[FNR - 1]; if ($2 != want[FNR - 1] || off > 0.06 || off < -0.06) exit 1}
        END {if (found != n) exit 1}' - "$1" || { cat "$work/torch.txt" "$1" && return 1; }
}
pytorch() { # pytorch NETWORK TRAINER OPTIONS...
    local network=$1 trainer=$2
    shift 2
    "$python" tests/predict_torch.py "$network" "$work/colour" "$picture" "$work" >"$work/torch.txt" || return 1
    "$predict" "$work/weights.safetensors" "$picture" >"$work/described.txt" && agrees "$work/described.txt" || return 1
    "$trainer" "$@" --data "$work/colour" --init "$work/plain.safetensors" --predict "$picture" >"$work/plain.txt" &&
        agrees "$work/plain.txt"
}
ok "PyTorch: airbench" pytorch "cnn-airbench width=0.25" "$train_airbench" --width 0.25 --tta 0
ok "PyTorch: plain" pytorch "cnn-plain width=0.5" "$train_cnn" --net plain --width 0.5
ok "PyTorch: small" pytorch "cnn-small width=0.25" "$train_cnn" --net small --width 0.25
ok "PyTorch: mlp" pytorch "mlp hidden=40,20" "$train_mlp" --hidden 40,20
finish
