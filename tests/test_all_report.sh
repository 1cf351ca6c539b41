#!/usr/bin/env bash
# A browser opens the pages of runs, live, killed, ended and continued: it has no complaint, asks for
# nothing from elsewhere, and shows what the log and the summary say.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/browser.sh"
need_browser "report in a browser"
check=$PWD/tests/check_report.py
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
cd "$work" || exit 1

right() { # right NAME RUN
    ok "$1: opens" browse "$2/report.html"
    ok "$1: nothing on the console" silent
    ok "$1: no request" asks_nobody
    ok "$1: its figures are the run's" python3 "$check" "$2" dom.html
}
mkdir loud
echo '<!DOCTYPE html><title>x</title><img src="http://example.invalid/x.png">' >loud/report.html
browse loud/report.html
ok "a request would be noticed" requests
echo '<!DOCTYPE html><title>x</title><script>console.error("loud")</script>' >loud/report.html
browse loud/report.html
ok "an error would be noticed" grep -q CONSOLE console.txt

appears() { for _ in $(seq 600); do [ -e "$1" ] && return 0 || sleep 0.05; done; return 1; }

"$train_airbench" --width 0.125 --epochs 300 --quiet --out live >/dev/null &
appears live/best.safetensors && appears live/report.html
right "live" live
ok "live: says so" grep -q "Running: step" dom.html
kill -9 %1
wait %1 2>/dev/null
right "killed" live
ok "no temporary file is a page" test "$(ls live/*.html)" = live/report.html

ok "cnn" "$train_cnn" --width 0.25 --epochs 2 --quiet --out cnn
right "cnn" cnn
ok "mlp" "$train_mlp" --epochs 2 --hidden 64 --quiet --out mlp
right "mlp" mlp
ok "bf16, average, few images" "$train_airbench" --data colour --batch-size 8 --width 0.125 --dtype bf16 --ema on \
    --augment flip=alternate,translate=2,cutout=4 --steps 20 --quiet --out small
right "bf16" small
ok "plain" "$train_cnn" --data grey --net plain --batch-size 8 --steps 20 --quiet --out plain
right "plain" plain

# A run that was stopped, continued to its end.
"$train_mlp" --data grey --batch-size 2 --hidden 12 --epochs 3000 --quiet --out stopped >/dev/null &
appears stopped/best.safetensors
kill -INT %+
wait %+
right "stopped" stopped
ok "stopped: says so" grep -q "Stopped by signal 2" dom.html
ok "half" "$train_mlp" --data grey --batch-size 8 --hidden 12 --steps 24 --save-every 8 --keep 9 --quiet --out half
rm -r half/checkpoints/step_00000016 half/checkpoints/step_00000024 half/summary.json
ok "continued" "$train_mlp" --resume half --quiet
right "continued" half
ok "continued: the whole curve" test "$(grep -c '"loss"' half/log.jsonl)" -eq 24

"$train_mlp" --steps 40 --optimizer sgd --lr 1e6 --quiet --out diverged 2>/dev/null
ok "diverged: opens" browse diverged/report.html
ok "diverged: says so, and does not reload" bash -c 'grep -q "the loss diverged: not finite first in step" dom.html && ! grep -q http-equiv=.refresh dom.html'
ok "off" "$train_mlp" --data grey --batch-size 8 --steps 8 --report off --quiet --out none
ok "off: no page" test ! -e none/report.html
ok "off: no norms in the log" bash -c '! grep -q norm none/log.jsonl'

# The end of a run waits half a minute for a page.
mkdir -p hangs/pages && cp "$train_mlp" hangs && printf '#!/bin/sh\nexec sleep 90\n' >hangs/pages/runs && chmod +x hangs/pages/runs
ok "a page that is never finished" timeout 50 hangs/train_mlp --data grey --batch-size 8 --hidden 8 --steps 5 --quiet --out hung
ok "one warning" test "$(grep -c 'the program that draws it does not end' err)$(wc -l <err)" = 11

emulated=$train_cnn
for how in asan fast; do
    [ ! -x "${train_cnn%/*}/emulated/$how/train_cnn" ] || emulated=${train_cnn%/*}/emulated/$how/train_cnn
done
if [ "$emulated" != "$train_cnn" ]; then
    ok "emulated CUDA" env ASAN_OPTIONS=detect_stack_use_after_return=0 OMP_NUM_THREADS=1 "$emulated" --device cuda --data colour --batch-size 8 --width 0.125 --steps 8 --quiet --out cuda
    right "emulated CUDA" cuda
else
    skip "emulated CUDA" "it is not built: docs/cuda.md"
fi

# The page's share of a run, without the last page's.
# On a busy machine any wait counts, so the best of three.
share() { python3 -c 'import json, sys; s = json.load(open(sys.argv[1])); print(s["seconds"]["report"] / s["total_seconds"])' "$1/summary.json"; }
for i in 1 2 3; do
    ok "the default run" "$train_cnn" --quiet --out "default$i"
    at_least 0.01 "$(share "default$i")" && break
done
ok "under 1% of a run's time" at_least 0.01 "$(share "default$i")"
finish
