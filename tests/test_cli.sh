#!/usr/bin/env bash
# The command line and the run's directory: what is refused leaves nothing behind.
. "$(dirname "$0")/lib.sh"
cd "$work" || exit 1

# ---- refused, each with one line and its status ----
u=2
"$prepare" cifar "$OLDPWD/tests/golden/colour" --out colour >/dev/null
fails "unknown option" $u "--batch-size" "$train_cnn" --batch-sizes 10
fails "zero batch" $u "--batch-size" "$train_cnn" --batch-size 0
fails "1e99" $u "--steps" "$train_cnn" --steps 1e99
fails "12abc" $u "12abc" "$train_cnn" --batch-size 12abc
fails "missing value" $u "--epochs" "$train_cnn" --epochs
fails "nan" $u "--lr" "$train_cnn" --lr nan
fails "negative" $u "--momentum" "$train_mlp" --momentum -1
fails "unknown network" $u "plain" "$train_cnn" --net resnet
fails "unknown schedule" $u "cosine" "$train_mlp" --schedule step
fails "hidden words" $u "--hidden" "$train_mlp" --hidden 512,big
fails "hidden zero" $u "--hidden" "$train_mlp" --hidden 0
fails "hidden empty" $u "the value of --hidden is empty" "$train_mlp" --hidden ""
fails "hidden comma" $u "--hidden" "$train_mlp" --hidden 5,
fails "augment" $u "--augment" "$train_cnn" --augment spin=3
fails "augment number" $u "translate" "$train_cnn" --augment translate=1.5
fails "augment hexadecimal" $u "translate" "$train_cnn" --augment translate=0x1
fails "augment space" $u "translate" "$train_cnn" --augment "translate= 1"
fails "stray word" $u "mnist" "$train_cnn" mnist
fails "batch above the set" $u "training images" "$train_cnn" --batch-size 100000
fails "steps and epochs" $u "--epochs" "$train_cnn" --steps 3 --epochs 2
fails "a report of no training" $u "leave it out" "$train_mlp" --selftest --report on
fails "verify without data" $u "--data" "$train_mlp" --verify
for option in profile "out x" target-accuracy=1; do
    # shellcheck disable=SC2086 # an option with its value
    fails "selftest not with $option" $u "--selftest checks alone; leave out" "$train_mlp" --selftest --$option
    # shellcheck disable=SC2086
    fails "predict not with $option" $u "--predict classifies pictures alone; leave out" "$train_mlp" --predict --$option
done
fails "eval-only not with --out" $u "leave out --out" "$train_mlp" --eval-only --out x
fails "eval-only alone" $u "--init" "$train_cnn" --eval-only
fails "unknown device" $u "gpu" "$train_cnn" --device gpu
fails "no GPU to be seen" 5 "scripts/doctor.sh" env CUDA_VISIBLE_DEVICES= "$train_cnn" --device cuda
fails "no such data" 3 "nowhere" "$train_cnn" --data nowhere
fails "no such weights" 3 "none.safetensors" "$train_mlp" --init none.safetensors
echo '{' >broken.safetensors
fails "broken weights" 3 "broken.safetensors" "$train_mlp" --init broken.safetensors
left=$(find . -mindepth 1 -maxdepth 1 ! -name out ! -name err ! -name colour ! -name broken.safetensors)
ok "nothing was left behind" test -z "$left"
ok "steps 0 is by epochs" "$train_mlp" --steps 0 --epochs 0.07 --batch-size 200 --hidden 8 --quiet --out short
ok "0.07 of 100 steps are 7" grep -q '"planned_steps": *7,' short/run.json

# ---- help ----
"$train_cnn" --help >help.txt
ok "help fits a screen" test "$(wc -l <help.txt)" -le 48
ok "help fits 100 columns" test "$(awk '{if (length > m) m = length} END {print m}' help.txt)" -le 100
"$train_cnn" --net plain --batch-size 77 --help >help2.txt
ok "help shows live values" grep -q "77" help2.txt

# ---- a run's directory ----
"$train_mlp" --steps 3 --hidden 8 --out run >stdout.txt 2>stderr.txt
ok "run's status" test $? -eq 0
ok "files of a run" test "$(ls run)" = "$(printf 'best.safetensors\ncheckpoints\nlog.jsonl\nmodel.safetensors\nreport.html\nreport.safetensors\nrun.json\nsummary.json')"
ok "one log line a step" test "$(grep -c '"loss"' run/log.jsonl)" -eq 3
ok "evaluation in the log" grep -q '"test_accuracy"' run/log.jsonl
ok "stderr is empty" test ! -s stderr.txt
ok "piped output has no escapes" bash -c "! grep -q $'\033' stdout.txt"
fails "a second run in the same place" $u "run" "$train_mlp" --steps 1 --out run
mkdir readonly && chmod 555 readonly
if [ "$(id -u)" -eq 0 ]; then
    fails "out below a file" 4 "stdout.txt" "$train_mlp" --steps 1 --out stdout.txt/run
    if [ -e /sys/kernel ]; then # where not even root makes directories
        fails "read-only directory" 4 "/sys/run" "$train_mlp" --steps 1 --out /sys/run
    else
        skip "read-only directory" "no /sys here, and root may write elsewhere"
    fi
else
    fails "read-only directory" 4 "readonly" "$train_mlp" --steps 1 --out readonly/run
fi
"$train_mlp" --steps 1 --hidden 8 >/dev/null
ok "default run directory" bash -c 'test -f runs/*-train_mlp/summary.json'
mkdir driver && gcc -shared -o driver/libcuda.so.1 -x c /dev/null # a driver that is of no use
LD_LIBRARY_PATH=$PWD/driver CUDA_VISIBLE_DEVICES='' "$train_mlp" --steps 1 --hidden 8 --out on_cpu >stdout.txt
ok "no GPU, automatic: on the CPU with one line why" test "$(grep -c '^note     on the CPU, since ..' stdout.txt)" -eq 1
mkdir fault && gcc -shared -fPIC -o fault/libcuda.so.1 -x c - <<<'int cuInit(unsigned f) { return *(volatile int *)0 + (int)f; }'
LD_LIBRARY_PATH=$PWD/fault "$train_mlp" --steps 1 --hidden 8 --out faulted >stdout.txt 2>stderr.txt
ok "a driver that faults: on the CPU" test $? -eq 0 -a ! -s stderr.txt
ok "a driver that faults: one line why" grep -q '^note     on the CPU, since the NVIDIA driver .* does not start: status ' stdout.txt
"$train_mlp" --steps 2 --hidden 8 --quiet --out quiet >stdout.txt
ok "quiet prints the result only" test "$(wc -l <stdout.txt)" -le 2

"$train_mlp" --steps 5 --hidden 8 --profile --out profiled >stdout.txt
ok "a profile lists every operation of a step" test "$(grep -cE '^(gather|linear|softmax|adamw).*%$' stdout.txt)" -eq 8
ok "by layer" test "$(grep -cE '^(input|layers\.[01]|loss|update) .*%$' stdout.txt)" -eq 5
ok "its shares are those of a whole step" awk '/^(all operations|between them)/ {gsub("%", ""); n++; sum += $NF}
    END {exit !(n == 2 && sum > 99.7 && sum < 100.3)}' stdout.txt
ok "profile.json has the same" test "$(grep -o '"operation":' profiled/profile.json | wc -l)" -eq 8
ok "the page has it" grep -q 'Where a step goes' profiled/report.html
ok "another run's page has none" bash -c "! grep -q 'Where a step goes' run/report.html"
ok "it changes no loss" test "$(sed 's/,"step_ms.*//' run/log.jsonl | head -n 1)" = "$(sed 's/,"step_ms.*//' profiled/log.jsonl | head -n 1)"

# ---- closed streams: what is opened does not take their place ----
"$train_mlp" --steps 2 --hidden 8 --out closed <&- >&- 2>&-
ok "closed streams" test $? -eq 0
ok "closed streams: the log is a log" test "$(head -c 9 closed/log.jsonl)" = '{"step":1'

# ---- weights come back ----
"$train_mlp" --init run/model.safetensors --hidden 8 --eval-only >eval.txt
ok "eval-only repeats the result" grep -q "$(awk "BEGIN {printf \"%.2f%%\", 100 * $(number run test_accuracy)}")" eval.txt
fails "another network" 3 "layers.0.weight" "$train_mlp" --init run/model.safetensors --hidden 9 --eval-only
fails "one layer more" 3 "layers.2.weight" "$train_mlp" --init run/model.safetensors --hidden 8,10 --eval-only
"$train_cnn" --steps 1 --net plain --out shapes --quiet >/dev/null
fails "other classes" 3 "trained on the classes" "$train_cnn" --net plain --init shapes/model.safetensors --eval-only --data colour
"$prepare" cifar "$OLDPWD/tests/golden/colour" --size 16x16 --out smaller >/dev/null
"$train_cnn" --steps 1 --width 0.125 --batch-size 16 --data colour --out coloured --quiet >/dev/null
fails "another input" 3 "trained on pictures of 32x32x3, but smaller has 16x16x3" "$train_cnn" \
    --init coloured/model.safetensors --eval-only --data smaller
"$train_mlp" --steps 1 --hidden 16,16,16,16,16 --out deep --quiet >/dev/null
LC_ALL=C sed 's/16,16,16,16,16/65000,65000,99/g; s/nn.checksum/nn.somewhat/' deep/model.safetensors >vast.safetensors
[ -n "$SANITIZE" ] && most=unlimited || most=2000000 # a sanitizer maps terabytes
fails "a file that names a network of 17 GB" 3 "vast.safetensors does not fit this network" \
    bash -c "ulimit -v $most && exec '$train_mlp' --init vast.safetensors --eval-only"
LC_ALL=C sed 's/"nn.mean":"\[0/"nn.mean":"[1/' deep/model.safetensors >flipped.safetensors
ok "another digit in nn.mean" bash -c '! cmp -s deep/model.safetensors flipped.safetensors'
fails "is noticed" 3 "flipped.safetensors is damaged" "$train_mlp" --init flipped.safetensors --eval-only
fails "missed target" 1 "--target-accuracy" "$train_mlp" --init run/model.safetensors --hidden 8 --eval-only --target-accuracy 0.999
fails "divergence" 6 "loss" "$train_mlp" --steps 40 --optimizer sgd --lr 1e6 --quiet --out diverged

# ---- a signal ends the step, saves and says so ----
"$train_airbench" --epochs 500 --width 0.125 --out stopped >/dev/null &
pid=$!
for _ in $(seq 100); do [ -s stopped/log.jsonl ] && break; sleep 0.1; done
kill -INT $pid
wait $pid
ok "SIGINT: status 130" test $? -eq 130
ok "SIGINT: weights saved" test -s stopped/model.safetensors
finish
