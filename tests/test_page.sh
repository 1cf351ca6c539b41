#!/usr/bin/env bash
# A training process has its page drawn by pages/runs beside it: in the background, one at a time, and
# the last one before it ends. Without that program, or with one that fails, it trains all the same.
. "$(dirname "$0")/lib.sh"
runs=$PWD/$BUILD/pages/runs
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
ok "no trainer has what draws pages" bash -c "! nm '$train_mlp' '$train_cnn' '$train_airbench' |
    grep -E ' [tT] (html_|chart_|pictures?_|report_page|report_facts|report_profile|saved_(run|log))'"
cd "$work" || exit 1
mlp=(--data grey --batch-size 8 --hidden 12 --quiet --threads 1)
beside() { # beside DIR: a trainer there, and stdin as the program that draws
    mkdir -p "$1/pages" && cp "$train_mlp" "$1" && cat >"$1/pages/runs" && chmod +x "$1/pages/runs"
}

# ---- a program that is missing, or fails ----
mkdir alone && cp "$train_mlp" alone
ok "without the program" sh -c 'alone/train_mlp "$@" 2>said' - "${mlp[@]}" --epochs 30 --out missing
ok "one warning" test "$(grep -c '^warning: no new report.html: cannot start .*/alone/pages/runs: No such file' said)$(wc -l <said)" = 11
ok "no page" test ! -e missing/report.html
ok "drawn later" "$runs" page missing
ok "a finished run's" grep -q '<strong>Finished</strong>' missing/report.html
beside fails <<<'#!/bin/sh
exit 3'
ok "a program that fails" sh -c 'fails/train_mlp "$@" 2>said' - "${mlp[@]}" --epochs 30 --out failed
ok "one warning" test "$(grep -c '^warning: no new report.html: .*/fails/pages/runs has ended with status 3' said)$(wc -l <said)" = 11

# ---- it does not wait, and is not waited for ----
# Notes how far the log was before and after, and what must not be.
beside slow <<'END'
#!/usr/bin/env bash
mkdir "$2/drawing" || echo "a second one" >>"$2/wrong"
[ -z "${LD_PRELOAD-}" ] || echo "preloaded" >>"$2/wrong"
[ ! -t 1 ] && [ "$(readlink /proc/$$/fd/2)" = /dev/null ] || echo "a stream" >>"$2/wrong"
before=$(wc -l <"$2/log.jsonl")
sleep 0.4
rmdir "$2/drawing"
echo "$before $(wc -l <"$2/log.jsonl") $(grep -aoE '"state": ?"[A-Z][a-z]*' "$2/report.safetensors")" >>"$2/drawn"
END
preload='' steps=6000
[ -n "$SANITIZE" ] || steps=60000 preload=$(ldd "$train_mlp" | awk '$1 ~ /^libz/ {print $3}')
ok "a slow one" env LD_PRELOAD="$preload" slow/train_mlp "${mlp[@]}" --steps $steps --save-every $steps --out slow/run
ok "one at a time, to itself" test ! -e slow/run/wrong
ok "training goes on meanwhile" awk 'NR == 1 && $2 > $1 {found = 1} END {exit !found}' slow/run/drawn
ok "the last page is of the end, and waited for" bash -c "tail -n 1 slow/run/drawn | grep -q Finished"

appears() { for _ in $(seq 600); do [ -e "$1" ] && return 0 || sleep 0.05; done; return 1; }
setsid slow/train_mlp "${mlp[@]}" --epochs 100000 --out slow/stopped >/dev/null 2>said &
appears slow/stopped/drawing
kill -INT -- -$!
wait $!
ok "Ctrl-C: status 130" test $? -eq 130
ok "Ctrl-C does not end what draws" test "$(wc -l <slow/stopped/drawn)" -eq 2
ok "the last one waits for it" test ! -e slow/stopped/wrong
ok "the last page says so" bash -c "tail -n 1 slow/stopped/drawn | grep -q Stopped"
ok "and nothing else is said" test ! -s said

# ---- names ----
ok "a run's name that looks like an option" "$train_mlp" "${mlp[@]}" --steps 3 --out=-x
ok "has its page" test -s ./-x/report.html
ok "off: no facts" sh -c '"$@" && test ! -e none/report.safetensors' - "$train_mlp" "${mlp[@]}" --steps 3 --report off --out none
finish
