#!/usr/bin/env bash
# What a person sees in a terminal: the panel at several widths, after a resize, without colours, and
# plain lines where there is none.
. "$(dirname "$0")/lib.sh"
if ! command -v tmux >/dev/null; then
    skip "terminal" "no tmux (scripts/setup.sh --dev)"
    finish
fi
cd "$work" || exit 1
runs=0
tm() { tmux -L "nn-$$-$runs" -f /dev/null "$@"; }
trap 'tm kill-server 2>/dev/null; rm -rf "$work"' EXIT

begin() { # begin COLUMNS COMMAND...: in a terminal of its own
    local columns=$1
    shift
    tm kill-server 2>/dev/null
    runs=$((runs + 1))
    tm new-session -d -x "$columns" -y 24 env -u NO_COLOR "$@"
}
long=("$train_mlp" --hidden "128,128" --batch-size 625 --epochs 500 --out)
screen() { tm capture-pane -p; }
shows() { screen | grep -qE "$1"; }
colors() { tm capture-pane -ep | grep -q $'\033\\[32m=*'; }
panels() { test "$(screen | grep -c "^loss ")" -eq "$1"; }
soon() { # soon COMMAND...: true within half a minute; between two frames a panel may be missing
    for _ in $(seq 300); do
        "$@" && return 0
        sleep 0.1
    done
    screen
    return 1
}

first='^epoch +[0-9.]+/500  left [0-9hms]+  step +[0-9]+/16000 +[0-9]+%'
second='^loss [0-9.]+  train +[0-9.]+%  test +[0-9.]+%  [0-9]+ img/s  data wait [0-9]+%  [0-9]+ MB$'
begin 80 "${long[@]}" run1
ok "80 columns: where it is, and what is left" soon shows "$first"
ok "80 columns: loss, accuracies, speed, waiting, memory" soon shows "$second"
ok "80 columns: a line for each evaluation" soon shows '^epoch +[0-9]+\.0/500  loss .*test .* img/s$'
ok "80 columns: a bar in colour" soon colors
tm resize-window -x 44
sleep 1
ok "narrower: one panel, cut" soon panels 1
tm resize-window -x 200
sleep 1
ok "200 columns: one panel, whole" soon panels 1
ok "200 columns: a bar" soon shows "$first \[=* +\]\$"

begin 80 NO_COLOR=1 "${long[@]}" run2
soon shows "$first" >/dev/null
if colors; then miss "NO_COLOR: no colour"; else pass "NO_COLOR: no colour"; fi
begin 80 TERM=dumb "${long[@]}" run3
ok "TERM=dumb: a line an epoch" soon shows '^epoch +[0-9]+\.0/500  step +[0-9]+/16000  loss'
ok "TERM=dumb: no panel" panels 0

# Afterwards the screen has what lasts.
begin 80 sh -c "'$train_mlp' --steps 300 --hidden 32 --out run; cat"
ok "in the end: the result and the next command" soon shows '^look     scripts/open_report.sh run$'
ok "in the end: no panel" soon panels 0
finish
