#!/usr/bin/env bash
# The patches and the trainer that docs/ shows build, train and pass --selftest; a broken backward line
# does not.
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITIZE" ]; then
    skip "patches of the documents" "they are tried without sanitizers"
    finish
fi
tree=$work/tree
mkdir "$tree"
cp -a Makefile train_*.c predict.c base kernels data train pages "$tree" 2>/dev/null
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

# ---- a trainer without classes ----
sed -n '/^```c$/,/^```$/p' docs/adding_a_trainer.md | sed '1d;$d' >"$tree/train_autoencoder.c"
auto=$tree/train_autoencoder
run=$work/auto
ok "trainer: at most 120 lines" test "$(wc -l <"$tree/train_autoencoder.c")" -le 120
ok "trainer: builds" build "train_autoencoder predict"
ok "trainer: without a warning" test -z "$(grep warning "$work/make.log")"
ok "trainer: passes the self-test" "$auto" --selftest
"$auto" --epochs 2 --save-every 100 --keep 9 --out "$run" >"$work/shown" 2>&1
ok "trainer: its test loss is below a quarter of the pixels' variance" at_least 0.25 "$(number "$run" test_loss)"
ok "trainer: the lines show the test loss" grep -qE '^epoch 2.0/2 .* test 0\.[0-9]{4} ' "$work/shown"
ok "trainer: so does the result" grep -qE '^result   test loss 0\.[0-9]{4}, trained in ' "$work/shown"
no_accuracy() { ! grep -ohE '[a-z_]*accuracy' "$work/shown" "$run"/*.json "$run/log.jsonl" | grep -v target_accuracy; }
ok "trainer: no accuracy anywhere" no_accuracy
ok "trainer: best is the lowest test loss" awk "BEGIN {exit !($(number "$run" best_test_loss) == $(number "$run" test_loss))}"
prints() { # prints PATTERN COMMAND...
    local pattern=$1
    shift
    "$@" >"$work/printed" && grep -E "$pattern" "$work/printed"
}
ok "trainer: eval-only has the test loss" prints '^test loss 0\.' "$auto" --eval-only --init "$run/best.safetensors"
sections() { grep -oE '<h2>[^<]+|<figcaption>[^<]+' "$run/report.html" | sed 's/.*>//'; }
sections >"$work/sections"
ok "trainer: the page has the loss and the filters" test "$(grep -cE "^(Loss, mean per image|First layer.s filters)$" "$work/sections")" -eq 2
ok "trainer: the page has no classes" test -z "$(grep -iE 'accuracy|confusion|mistakes|test images' "$work/sections")"
ok "trainer: the list has the loss" prints ' 0\.[0-9]{4} ' "$tree/$BUILD/pages/runs" "$run"
cp -r "$run" "$work/cut"
rm -r "$work"/cut/checkpoints/step_00000[23]* "$work"/cut/{model,best}.safetensors "$work/cut/summary.json"
ok "trainer: resumes" "$auto" --resume "$work/cut" --quiet
for file in model best; do
    ok "trainer: with the same bits, $file" cmp "$run/$file.safetensors" "$work/cut/$file.safetensors"
done
ok "trainer: a speedrun of losses" prints '^loss     mean 0\.' "$auto" --speedrun --seeds 1 --steps 20 --quiet --out "$work/speed"
fails "trainer: no predictions" 2 "no --predict: its network knows no classes" "$tree/predict" "$run" docs/img
fails "trainer: no target" 2 "no --target-accuracy: its network knows no classes" "$auto" --target-accuracy 0.5
fails "trainer: no smoothing" 2 "no --label-smoothing: its network knows no classes" "$auto" --label-smoothing 0.1
finish
