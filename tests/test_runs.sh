#!/usr/bin/env bash
# scripts/runs.sh: what it lists, the page that compares, a run's own page, and logs as CSV;
# docs/runs.md has every field of a log and every tensor of the facts.
. "$(dirname "$0")/lib.sh"
tool=$PWD/$BUILD/pages/runs
document=$PWD/docs/runs.md
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
cd "$work" || exit 1
fails "no run yet" 3 "no run in runs/; train one first" "$tool"

mlp=("$train_mlp" --data grey --batch-size 8 --hidden 12 --quiet)
appears() { for _ in $(seq 600); do [ -e "$1" ] && return 0 || sleep 0.05; done; return 1; }
ok "a run" "${mlp[@]}" --epochs 2
first=$(basename runs/*-train_mlp)
ok "another" "${mlp[@]}" --epochs 2 --lr 2 --ema on --clip-norm 1 --seed 3 --out "runs/a <b> & \"c\", d"
ok "of another trainer" "$train_airbench" --data colour --batch-size 8 --width 0.125 --steps 12 --ema on \
    --clip-norm 1 --save-every 6 --quiet --out runs/cnn
"${mlp[@]}" --epochs 100000 --out runs/stopped >/dev/null &
appears runs/stopped/best.safetensors
"${mlp[@]}" --epochs 100000 --out runs/live >/dev/null &
appears runs/live/best.safetensors
kill -INT %1 && wait %1

ok "a speedrun" "${mlp[@]}" --steps 3 --speedrun --seeds 1 --out runs/fast

killed_report() {
    "${mlp[@]}" --bench --out runs/timed >/dev/null &
    appears runs/timed/run.json
    { kill -9 $! && wait $!; } 2>/dev/null
    [ -e runs/timed/run.json ]
}
ok "a timing report that is killed" killed_report
fails "output that cannot be written" 4 "cannot write the output" bash -c "'$tool' >/dev/full"

# ---- the list ----
ok "finished: network, data, device, accuracy" bash -c "'$tool' | grep -E '^[01][0-9]-[0-9]+ [0-9]+:[0-9]+ $first mlp 12 +grey +cpu +[0-9.]+% +[0-9]+s$'"
ok "running" bash -c "'$tool' | grep -E ' live .*% running$'"
kill -9 %2 && wait %2 2>/dev/null
ok "killed" bash -c "'$tool' | grep -E ' live .*% cut off$'"
ok "stopped by a signal" bash -c "'$tool' | grep -E ' stopped .*% stopped$'"
ok "no speedrun, no timing report" bash -c "'$tool' >list.txt && ! grep -E ' (fast|timed) ' list.txt"
ok "the oldest first" bash -c "'$tool' | sed -n 2p | grep -q ' $first '"
ok "one run" bash -c "'$tool' runs/cnn | tail -n 1 | grep -q ' runs/cnn .*cnn-airb'"
ok "by --help" bash -c "'$tool' --help | grep -q 'scripts/runs.sh compare'"
mkdir many
for i in {1..300}; do cp -r runs/cnn "many/a name that is far too long for a line of eighty columns $i"; done
mkdir many/other "many/$(printf 'esc\033[31m')" && cp -r runs/cnn/* "many/$(printf 'esc\033[31m')"
began=$EPOCHREALTIME
ok "300 runs, a folder that is none" bash -c "'$tool' many >list.txt"
ok "in under 5 seconds" awk "BEGIN {exit !($EPOCHREALTIME - $began < 5)}"
ok "all of them" test "$(wc -l <list.txt)" -eq 302
ok "in 80 columns, cut visibly" bash -c "! LC_ALL=C.UTF-8 grep -E '.{81}' list.txt && grep -q 'a name that is far too.*…' list.txt"
ok "no control characters" bash -c "! LC_ALL=C grep -q '[[:cntrl:]]' list.txt"
ok "--wide: whole" bash -c "'$tool' --wide many | grep -q ' many/a name that is far too long for a line of eighty columns 7 '"
mkdir old && cp -r runs/cnn old/cnn && rm old/cnn/run.json
ok "a run from before run.json" bash -c "'$tool' old | grep -E 'old/cnn +cnn-airbench 0.125 +colour .*%'"

# ---- the page ----
"$tool" compare runs/cnn "a <b> & \"c\", d" live stopped >said
ok "says where the page is" grep -qx "page     runs.html" said
ok "names are escaped" grep -q '<th scope="row">.*>a &lt;b&gt; &amp; &quot;c&quot;, d</th>' runs.html
ok "six charts" test "$(grep -c 'role="img"' runs.html)" -eq 6
ok "of four runs" test "$(grep -o '<title>Test loss over steps</title><desc>.*' runs.html | grep -o 'last' | wc -l)" -eq 4
for key in test_accuracy test_loss best_test_accuracy train_seconds images_per_s; do
    ok "the summary's $key" grep -qF "<data value=\"$(awk "BEGIN {printf \"%.9g\", $(number runs/cnn $key)}")\">" runs.html
done
ok "options that differ" grep -q '<th scope="col">lr</th>' runs.html
ok "of two like each other" "$tool" compare --out two.html "$first" "a <b> & \"c\", d"
ok "only those that were given" test "$(grep -oE '<th scope="col">[a-z_]+</th>' two.html | tail -n 4 | tr -d '\n')" = \
    '<th scope="col">lr</th><th scope="col">clip_norm</th><th scope="col">ema</th><th scope="col">seed</th>'
ok "eight runs, named" "$tool" compare --out eight.html cnn cnn cnn cnn cnn cnn cnn live
ok "eight curves" test "$(grep -o 'stroke-dasharray="[^"]*" d="M[^0 ]' eight.html | wc -l)" -ge 48
ok "one run" "$tool" compare cnn --out=one.html
ok "has nothing that differs" bash -c "! grep -qE 'What differs|the same options' one.html"
cp runs.html before.html
fails "nine" 2 "1 to 8 runs, but 9" "$tool" compare cnn cnn cnn cnn cnn cnn cnn cnn cnn
fails "none" 2 "1 to 8 runs, but 0" "$tool" compare
fails "no run" 3 "many is no run" "$tool" compare cnn many
fails "not there" 3 "nowhere is no run" "$tool" compare nowhere
fails "an option" 2 "--wide" "$tool" compare --wide cnn
fails "an option that is none" 2 "--otu" "$tool" compare --otu x cnn
fails "a folder that is not there" 3 "nowhere" "$tool" nowhere
fails "a page that cannot be written" 4 "nowhere/x.html" "$tool" compare --out nowhere/x.html cnn
ok "no failure touched the page" cmp runs.html before.html

# ---- a run's own page ----
rm runs/cnn/report.html
ok "a run's own page" bash -c "'$tool' page cnn >said"
ok "says where it is" grep -qx "page     runs/cnn/report.html" said
ok "of the end" grep -q "<strong>Finished</strong>" runs/cnn/report.html
ok "of a killed run" "$tool" page live
ok "as its process left it" grep -q "<strong>Running: step" runs/live/report.html
facts=runs/cnn/report.safetensors
cp -r runs/cnn runs/harmed && cp $facts whole.safetensors && cp runs/cnn/report.html before.html
ok "the facts are a safetensors file with the documented names" test "$(head -c 4000 $facts | grep -aoE '"[a-z.]+": ?\{' | wc -l)" -eq 10
harmed() { # harmed NAME TEXT: what stdin makes of the facts is refused with that text
    cat >runs/harmed/report.safetensors
    fails "$1" 3 "$2" "$tool" page harmed
}
head -c 5000 whole.safetensors | harmed "cut off" "harmed/report.safetensors: "
sed 's/"test.label"/"test.lapel"/; s/nn.checksum/nn.somewhat/' whole.safetensors | harmed "a tensor that is missing" "no U16 test.label of 1 dimensions"
LC_ALL=C sed 's/"channels":3/"channels":4/' whole.safetensors | harmed "bytes that have changed" "is damaged: CRC-32"
LC_ALL=C sed 's/"channels":3/"channels":4/; s/nn.checksum/nn.somewhat/' whole.safetensors | harmed "contents that do not fit" "pictures of 32x32x4"
head -c 3 whole.safetensors | harmed "three bytes" "no safetensors file"
rm runs/harmed/report.safetensors
fails "a run without facts" 3 "harmed/report.safetensors: No such file" "$tool" page harmed
cp whole.safetensors runs/harmed/report.safetensors
ok "no failure touched the page" cmp runs/harmed/report.html before.html
fails "two runs" 2 "page writes one run, but 2" "$tool" page cnn live

# ---- CSV ----
"$tool" csv cnn >cnn.csv
ok "a row a record" test "$(wc -l <cnn.csv)" -eq $(($(wc -l <runs/cnn/log.jsonl) + 1))
ok "line ends" test "$(grep -c $'\r$' cnn.csv)" -eq "$(wc -l <cnn.csv)"
ok "the header" grep -q '^step,epoch,loss,lr,train_accuracy,step_ms,images_per_s,data_wait_ms,' cnn.csv
ok "as many fields everywhere" test "$(awk -F, '{print NF}' cnn.csv | sort -u | wc -l)" -eq 1
loss=$(sed -nE '3s/.*"loss": ?([^,]*),.*/\1/p' runs/cnn/log.jsonl)
ok "the third record's loss" test "$(awk -F, 'NR == 4 {print $3}' cnn.csv)" = "$loss"
mkdir runs/odd && printf '{"step":1,"a,b":"say \\"x\\"","c":null}\n{"step":2,"d":[1],"e":true}\n{"step":3,"los' >runs/odd/log.jsonl
"$tool" csv odd >odd.csv
printf 'step,"a,b",c,d,e\r\n1,"say ""x""",,,\r\n2,,,,true\r\n' >expected.csv
ok "quoted, missing, and a torn last line" cmp odd.csv expected.csv
printf '{"step":5e-324,"epoch":1,"loss":1,"step_ms":1}\n{"step":1e-322,"epoch":2,"loss":2,"step_ms":1}\n' >runs/odd/log.jsonl
ok "steps that are no whole numbers: it ends" sh -c 'timeout 20 "$0" compare odd --out odd.html 2>said' "$tool"
ok "and says so" grep -qx "warning: runs/odd/log.jsonl is damaged in line 1; what follows is left out" said
printf '{"step":1,"epoch":1e-320,"loss":1e300,"step_ms":1e30}\n{"step":2,"epoch":5e-324,"loss":-1e308,"step_ms":1e308}\n' >runs/odd/log.jsonl
ok "numbers beyond all measure: it ends" timeout 20 "$tool" compare odd --out odd.html
printf '{"step":1,"loss":2}\n{"step":2,"lo\n{"step":3,"loss":1}\n' >runs/odd/log.jsonl
"$tool" csv odd >odd.csv 2>said
ok "a damaged line is told" grep -qx "warning: runs/odd/log.jsonl is damaged in line 2; what follows is left out" said
ok "what is before it is written" test "$(wc -l <odd.csv)" -eq 2
: >runs/odd/log.jsonl
ok "an empty log" "$tool" csv odd
ok "an empty curve" "$tool" compare odd cnn
printf '{' >runs/odd/summary.json
fails "a damaged summary" 3 "odd/summary.json: JSON" "$tool" compare odd
ok "does not hide the other runs" bash -c "'$tool' 2>err | grep -q ' cnn ' && grep -q 'left out: .*odd/summary.json' err"
fails "CSV of two runs" 2 "csv writes one run, but 2" "$tool" csv cnn live
ok "a full disk" bash -c "'$tool' csv cnn >/dev/full; test \$? -eq 4"

# ---- the document ----
section() { sed -n "/^## $1/,/^## [^${1:0:1}]/p" "$document"; }
documented() { # documented SECTION NAMES...: those that are not in it
    local text name
    text=$(section "$1")
    shift
    for name; do grep -qF "\`$name\`" <<<"$text" || echo "not documented: $name"; done
}
keys() { cat runs/cnn/run.json runs/{cnn,stopped}/summary.json | sed -E 's/"options": ?\{[^}]*\}//' | grep -oE '"[a-z_]+":' | tr -d '":' | sort -u; }
fields() { for run in cnn "$first" live; do "$tool" csv $run | head -n 1 | tr -d '\r' | tr ',' '\n'; done | sed 's/[.].*//' | sort -u; }
# shellcheck disable=SC2046 # names without spaces
ok "every field of the logs" test -z "$(documented log.jsonl $(fields) | tee /dev/stderr)"
ok "there are many" test "$(fields | wc -l)" -ge 12
# shellcheck disable=SC2046
ok "every field of run.json and summary.json" test -z "$(documented "run.json and summary.json" $(keys) | tee /dev/stderr)"
ok "there are more" test "$(keys | wc -l)" -ge 30
# shellcheck disable=SC2046
ok "every tensor of report.safetensors" test -z "$(documented report.safetensors $(head -c 4000 $facts | grep -aoE '"[a-z.]+": ?\{' |
    grep -oE '[a-z.]+') | tee /dev/stderr)"
finish
