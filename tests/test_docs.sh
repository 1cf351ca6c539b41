#!/usr/bin/env bash
# The patches that docs/ shows apply, train and pass --selftest; a broken backward line does not.
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITIZE" ]; then
    skip "patches of the documents" "they are tried without sanitizers"
    finish
fi
tree=$work/tree
mkdir "$tree"
cp -a Makefile train_*.c base kernels data train pages "$tree" 2>/dev/null
mkdir -p "$tree/build" && cp -a "$BUILD" "$tree/$BUILD"

patch_of() { sed -n '/^```diff$/,/^```$/p' "$1" | sed '1d;$d'; }
applies() { # applies DOCUMENT: as it stands, no line of context differs and no hunk has moved
    patch_of "$1" | patch -F0 -p1 -d "$tree" | tee "$work/patch.log"
    [ "${PIPESTATUS[1]}" -eq 0 ] && ! grep -q offset "$work/patch.log"
}
build() { make -s -C "$tree" NVCC= $1 >"$work/make.log" 2>&1; } # one program or more
selftest_names() { # selftest_names TENSOR: fails, and names it
    "$tree/train_cnn" --net plain --selftest >"$work/out" 2>&1
    [ $? -eq 1 ] && grep -q "gradient of $1 is not" "$work/out"
}

ok "README: the edit applies" applies README.md
ok "README: builds" build train_cnn
ok "README: passes the self-test" "$tree/train_cnn" --net plain --selftest

ok "layer: the patch applies" applies docs/adding_a_layer.md
ok "layer: it is five lines" test "$(patch_of docs/adding_a_layer.md | grep -c '^+[^+]')" -eq 5
ok "layer: builds" build train_cnn
ok "layer: passes the self-test" "$tree/train_cnn" --net plain --selftest
ok "layer: trains" "$tree/train_cnn" --net plain --steps 60 --quiet --out "$work/layer" --target-accuracy 0.3
line='layer_backward(&m.extra, m.grad, m.grad);'
sed -i "s/$line/(void)0;/" "$tree/train_cnn.c"
build train_cnn
ok "layer: no backward line fails the self-test" selftest_names extra.weight
sed -i "s/(void)0;/layer_backward(\&m.extra, m.branch_grad, m.grad);/" "$tree/train_cnn.c"
build train_cnn
ok "layer: no input gradient fails the self-test" selftest_names conv4.weight

ok "optimizer: the patch applies" applies docs/adding_an_optimizer.md
ok "optimizer: builds" build "train_mlp train_cnn"
ok "optimizer: trains" "$tree/train_mlp" --optimizer rmsprop --epochs 1 --quiet --out "$work/rms" --target-accuracy 0.5
ok "optimizer: trains another network" "$tree/train_cnn" --net plain --optimizer rmsprop --lr 0.1 --steps 3 --quiet --out "$work/rms2"
finish
