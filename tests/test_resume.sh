#!/usr/bin/env bash
# Checkpoints and --resume: what is kept, what a continued run takes over and refuses, damaged
# checkpoints, signals, the lock, --init, and where a diverged loss began.
. "$(dirname "$0")/lib.sh"
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
former=$PWD/tests/golden/former compare=$PWD/$BUILD/tests/compare_models
cd "$work" || exit 1
mlp=("$train_mlp" --data grey --batch-size 8 --hidden 12 --quiet)

losses() { sed -E 's/,"step_ms.*//' "$1/log.jsonl"; }
same_run() { cmp "$1/model.safetensors" "$2/model.safetensors" && same_text "$(losses "$1")" "$(losses "$2")"; }
steps() { find "$1/checkpoints" -name 'step_*' | sort | sed 's/.*step_0*//' | tr '\n' ' '; }
flip_byte() { # flip_byte FILE OFFSET
    local old
    old=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\$(printf %o $((old ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# ---- what is kept ----
ok "a run" "${mlp[@]}" --steps 20 --out run
ok "a checkpoint an epoch and one at the end, the newest two kept" test "$(steps run)" = "16 20 "
ok "files of a checkpoint" test "$(ls run/checkpoints/step_00000020)" = "$(printf 'model.safetensors\nstate-r000-of-001.safetensors')"
"$train_mlp" --data grey --hidden 12 --init run/best.safetensors --eval-only >best.txt
ok "best weights" grep -q "$(awk "BEGIN {printf \"%.2f%%\", 100 * $(number run best_test_accuracy)}")" best.txt
ok "save-every and keep" "${mlp[@]}" --steps 20 --save-every 3 --keep 4 --out often
ok "newest four" test "$(steps often)" = "12 15 18 20 "
ok "saving changes no number" same_run run often
fails "keep 1" 2 "--keep" "${mlp[@]}" --keep 1

# ---- continued inside an epoch, one thread or two, every optimizer ----
continued() { # continued NAME OPTIONS...: as an uninterrupted run
    local name=$1
    shift
    "$@" --steps 21 --save-every 5 --keep 9 --quiet --threads 1 --out "$name" >/dev/null || return 1
    for threads in 1 2; do
        rm -rf "$name-$threads"
        cp -r "$name" "$name-$threads"
        (cd "$name-$threads" && rm -r checkpoints/step_0000001[05] checkpoints/step_0000002* model.safetensors best.safetensors summary.json) 2>/dev/null
        [ "$(steps "$name-$threads")" = "5 " ] || return 1
        "$train_any" --resume "$name-$threads" --threads $threads --quiet || return 1
        same_run "$name" "$name-$threads" || return 1
        cmp "$name/best.safetensors" "$name-$threads/best.safetensors" || return 1
    done
}
train_any=$train_mlp
ok "adamw continued" continued adamw "${mlp[@]}" --schedule cosine --label-smoothing 0.1
ok "sgd and clipping continued" continued sgd "${mlp[@]}" --optimizer sgd --clip-norm 0.5
"${mlp[@]}" --dtype bf16 --steps 1 --out probe >/dev/null 2>why.txt
if [ $? -ne 5 ]; then
    ok "bf16 continued" continued bf16 "${mlp[@]}" --dtype bf16
else
    skip "bf16 continued" "$(cat why.txt)"
fi
train_any=$train_airbench
ok "muon, average and augmentation continued" continued muon "$train_airbench" --data colour --batch-size 8 \
    --width 0.125 --lr 0.05 --ema on --augment flip=alternate,translate=2,cutout=4
train_any=$train_cnn
ok "a residual network continued" continued residual "$train_cnn" --data colour --batch-size 8 --width 0.125 --ema on
ok "plain continued" continued plain "$train_cnn" --data grey --batch-size 8 --net plain --width 0.5 \
    --augment brightness=0.1,contrast=0.2

aside() { cp -r run aside && "$train_mlp" --resume aside --graph off --resident off --profile --quiet >/dev/null; }
ok "what changes no number may be given anew" aside

# A run of 1,200 steps logs every second one.
between() {
    "$train_mlp" --data grey --batch-size 2 --hidden 8 --steps 1200 --save-every 601 --quiet --threads 1 --out between || return 1
    cp -r between between-lines
    rm -r between-lines/checkpoints/step_00001200 between-lines/model.safetensors
    "$train_mlp" --resume between-lines --quiet || return 1
    same_run between between-lines
}
ok "continued between two lines of the log" between

# ---- what is refused, with the difference ----
fails "another rate" 3 "begun with --lr 1: it cannot go on with --lr 2" "$train_mlp" --resume run --lr 2
fails "resume with another model" 3 "--hidden 12" "$train_mlp" --resume run --hidden 13
fails "another seed" 3 "--seed 1" "$train_mlp" --resume run --seed 2
fails "another length" 3 "--steps 20" "$train_mlp" --resume run --steps 30
fails "resume with another model: another trainer" 3 "begun by train_mlp" "$train_cnn" --resume run
fails "resume with another data set" 3 "begun on other data: grey (64 + 16 images of 19x18x1" "$train_mlp" --resume run --data colour
fails "no run" 3 "nowhere" "$train_mlp" --resume nowhere
fails "resume and out" 2 "--out" "$train_mlp" --resume run --out other
fails "resume and init" 2 "--init" "$train_mlp" --resume run --init run/model.safetensors
fails "a directory that holds a run" 2 "--resume run" "${mlp[@]}" --out run
mkdir none
fails "nothing to continue" 3 "no checkpoint to continue from" "$train_mlp" --resume none
mv grey moved
fails "the data moved" 3 "grey" "$train_mlp" --resume run
ok "its new place" "$train_mlp" --resume run --data moved --quiet
mv moved grey
ok "a finished run ends alike again" same_run run often

# ---- damaged checkpoints ----
cp -r adamw damaged
(cd damaged && rm -r checkpoints/step_00000021 model.safetensors)
flip_byte damaged/checkpoints/step_00000020/state-r000-of-001.safetensors 9000
truncate -s -1 damaged/checkpoints/step_00000015/model.safetensors
"$train_mlp" --resume damaged >stdout.txt 2>stderr.txt
ok "two damaged ones: falls back" test $? -eq 0
ok "with a warning each" test "$(grep -c '^warning: skipping a damaged checkpoint: .*step_000000[12]' stderr.txt)" -eq 2
ok "from the newest whole one" grep -q "^resume   after step 10$" stdout.txt
ok "to the same end" same_run damaged adamw
ok "and keeps the damaged ones aside" test -d damaged/checkpoints/damaged_00000015 -a -d damaged/checkpoints/damaged_00000020
cp -r run all-damaged
for f in all-damaged/checkpoints/*/model.safetensors; do flip_byte "$f" 5000; done
"$train_mlp" --resume all-damaged 2>stderr.txt
ok "none whole: status 3" test $? -eq 3
ok "and says so" grep -q "none of the 2 checkpoints in all-damaged/checkpoints is whole" stderr.txt
cp -r run stale
mkdir stale/checkpoints/.tmp-99-1
touch stale/checkpoints/.tmp-99-1/model.safetensors stale/.tmp-summary.json-1-0
ok "resume with stale temporaries" "$train_mlp" --resume stale --quiet
ok "stale temporaries are swept" test -z "$(find stale -name '.tmp-*')"

# ---- memory ----
wide=65536,65536,65536,65536,65536,65536,65536,65536 # 30 billion parameters
fails "host memory short" 4 "this network and batch need" "${mlp[@]}" --hidden $wide --out wide
ok "host memory short: nothing was written" test ! -e wide

# ---- signals ----
started() { for _ in $(seq 1000); do [ -s "$1/log.jsonl" ] && break; sleep 0.01; done; }
[ -n "$SANITIZE" ] && many=100 narrow=0.0625 || many=1000 narrow=0.5
# Over a second from the first line of the log to the end, so that the signal is not too late.
long=("$train_airbench" --data colour --batch-size 8 --width 0.125 --steps "$many" --ema on --lr 0.05 --quiet)
"${long[@]}" --out whole >/dev/null
not_ignored=(env --default-signal=INT --default-signal=HUP --default-signal=PIPE) # whoever runs this test, under nohup say
for signal in INT:130 TERM:143 HUP:129 PIPE:141; do
    expected=${signal#*:} signal=${signal%:*}
    "${not_ignored[@]}" "${long[@]}" --out stopped-$signal >/dev/null &
    pid=$!
    started stopped-$signal
    kill -$signal $pid
    wait $pid
    ok "SIG$signal: status" test $? -eq "$expected"
    ok "SIG$signal: goes on" "$train_airbench" --resume stopped-$signal --quiet
    ok "SIG$signal: the same run" same_run stopped-$signal whole
done
"${not_ignored[@]}" "${long[@]}" --out limited >/dev/null &
pid=$!
started limited
kill -HUP $pid
kill -HUP $pid
wait $pid
ok "SIGHUP twice, as a terminal sends it: status" test $? -eq 129
(ulimit -f 8; exec "${long[@]}" --report off --out full 2>full.txt)
ok "a limit on the size of files: status 4" test $? -eq 4
ok "a limit on the size of files: one line" grep -q "^error: .*File too large" full.txt
ok "a limit on the size of files: nothing half-written" test -z "$(find full -name '.tmp-*')"
# The norms are logged right before a test that takes about a second.
tested=("$train_airbench" --steps 1 --batch-size 50 --width "$narrow" --tta 0 --quiet)
"${tested[@]}" --out tested >/dev/null
"${tested[@]}" --out untested >/dev/null &
pid=$!
for _ in $(seq 1000); do grep -qs weight_norm untested/log.jsonl && break; sleep 0.01; done
kill -INT $pid
wait $pid
ok "SIGINT in a test: no result" test $? -eq 130 -a -z "$(grep test_loss untested/log.jsonl)"
ok "SIGINT in a test: goes on" "$train_airbench" --resume untested --quiet
ok "SIGINT in a test: the same run" same_run untested tested
if [ -e /proc/self/status ]; then
    large=$([ -n "$SANITIZE" ] && echo 500 || echo 20000) # a step of a second
    "$train_mlp" --batch-size $large --hidden 1000,1000 --steps 100 --threads 1 --out twice >/dev/null &
    pid=$!
    started twice
    kill -INT $pid
    while caught=$(sed -n 's/^SigCgt:\s*//p' /proc/$pid/status) && ((0x$caught & 2)); do :; done # until it came
    kill -TERM $pid
    wait $pid
    status=$?
    ok "a second signal leaves at once" test $status -eq 143 -a ! -e twice/summary.json
else
    skip "a second signal" "no /proc here, which tells that the first came"
fi
"${long[@]}" --steps 100000 --out locked >/dev/null &
pid=$!
for _ in $(seq 200); do [ -d locked/checkpoints/step_00000008 ] && break; sleep 0.05; done
fails "two runs in one directory" 4 "another run is using locked" "$train_airbench" --resume locked
kill -9 $pid
wait $pid 2>/dev/null

# ---- runs of the train_cnn that was two networks ----
cp -r "$former/airbench" former-airbench
cp -r "$former/simple" former-simple
fails "former airbench: train_cnn says who takes it" 3 "./train_airbench --resume former-airbench" "$train_cnn" --resume former-airbench
ok "former airbench: goes on" "$train_airbench" --resume former-airbench --quiet
ok "former airbench: to the weights that it had then" "$compare" "$former/airbench.after.safetensors" \
    former-airbench/model.safetensors 1e-3 "$former/airbench/checkpoints/step_00000003/model.safetensors"
ok "former airbench: its weights" "$train_airbench" --init "$former/airbench/best.safetensors" --data grey --eval-only
fails "former airbench: its weights, to train_cnn" 3 "give it to ./train_airbench" "$train_cnn" --init "$former/airbench/best.safetensors" --steps 1
fails "former simple: no program takes it" 3 "./train_cnn --net plain" "$train_cnn" --resume former-simple
fails "former simple: its weights" 3 "./train_cnn --net plain" "$train_cnn" --init "$former/simple/best.safetensors" --steps 1

# ---- --init lists what does not fit ----
fails "missing tensors" 3 "2 missing: layers.2.weight, layers.2.bias" "$train_mlp" --data grey --hidden 12,9 --init run/model.safetensors --eval-only
fails "unexpected tensors" 3 "2 unexpected: layers.1.weight, layers.1.bias" "$train_mlp" --data grey --hidden none --init run/model.safetensors --eval-only
fails "other shapes" 3 "different: layers.0.weight is F32(12,342) for F32(13,342)" "$train_mlp" --data grey --hidden 13 --init run/model.safetensors --eval-only

# ---- divergence ----
grows=("${mlp[@]}" --weight-decay 10 --lr 1000 --schedule constant --steps 300)
"${grows[@]}" --out nan 2>stderr.txt
ok "NaN or Inf loss: status 6" test $? -eq 6
ok "NaN or Inf loss: names the step, the layer and the tensor" grep -qE "^error: the loss diverged: not finite first in step [0-9]+, layer layers\.[01], (activation|the gradient of|the update of)" stderr.txt
ok "one line" test "$(wc -l <stderr.txt)" -eq 1
# A long run logs and looks at every 6th step only.
fails "NaN or Inf loss: between two lines of the log" 6 "$(cat stderr.txt)" "${grows[@]}" --steps 3000 --out nan-long
ok "no summary" test ! -e nan/summary.json
ok "NaN or Inf loss: the best weights stay" "$train_mlp" --data grey --hidden 12 --init nan/best.safetensors --eval-only
fails "NaN or Inf loss: the checkpoints stay, and lead to the same step" 6 "$(cat stderr.txt)" "$train_mlp" --resume nan --quiet
finish
