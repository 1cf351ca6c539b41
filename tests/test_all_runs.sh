#!/usr/bin/env bash
# A browser opens the page of scripts/runs.sh compare: it has no complaint, asks for nothing from
# elsewhere, and shows what the runs' logs and summaries say.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/browser.sh"
need_browser "runs compared in a browser"
tool=$PWD/$BUILD/pages/runs check=$PWD/tests/check_runs.py
cd "$work" || exit 1
hostile='<script>alert("1") & co'
ok "a run" "$train_mlp" --epochs 2 --hidden 64 --quiet --out runs/first
ok "another rate" "$train_mlp" --epochs 3 --hidden 64 --lr 0.3 --quiet --out "runs/$hostile"
ok "another trainer" "$train_airbench" --width 0.125 --epochs 2 --ema on --quiet --out runs/cnn
runs=(runs/first "runs/$hostile" runs/cnn)
ok "compare" "$tool" compare "${runs[@]}"
ok "opens" browse runs.html
ok "nothing on the console" silent
ok "no request" asks_nobody
ok "its figures are the runs'" python3 "$check" runs.html dom.html "${runs[@]}"
finish
