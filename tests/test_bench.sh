#!/usr/bin/env bash
# --bench writes a whole report, and scripts/compare.sh reads it (docs/timing.md); what is concluded
# is tested in test_comparison.c.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

compare=("$PWD/$BUILD/pages/runs" timing)
run=$work/run report=$work/run/bench.json
# bench DIR PROGRAM OPTIONS...: a quick report of a small network
bench() {
    local out=$1 program=$2
    shift 2
    "$program" --bench --quick --quiet --batch-size 64 --hidden 16 --device cpu --out "$out" "$@" || return
    # tests run beside other programs, for which the comparison would be void
    sed -i -E 's/"others": ?[0-9.e+-]+/"others":0/' "$out/bench.json"
}

ok "a quick report" bench "$run" "$PWD/$BUILD/tests/slow_train_mlp" --target-accuracy 0.2
cp "$work/out" "$work/table"
for row in clock_read fork_join cpu_1t gemm operation upload_64mb file_read start_to_first_step time_to_accuracy \
    step step_batch_32 epoch; do
    ok "row $row is in the table" grep -qE "^[a-z]+ +$row " "$work/table"
    ok "row $row is in the report" grep -q "\"name\": *\"$row\"" "$report"
done
ok "a device that waits is worse, and decides nothing" \
    grep -q '"device_clock","kind":"micro","unit":"%","better":"higher"' "$report"
ok "no file is left beside the report" test ! -e "$run/file.tmp"
ok "no checkpoint either" sh -c "! ls '$run' | grep -q checkpoint"
fails "--bench measures alone" 2 "leave out --selftest" "$train_mlp" --bench --selftest
fails "an accuracy out of reach" 1 "--target-accuracy 1 was not reached in 40 steps" \
    bench "$work/missed" "$train_mlp" --steps 40 --target-accuracy 1 --save-every 2
ok "a report leaves nothing to resume" test ! -e "$work/missed/checkpoints"
fails "--quick belongs to --bench" 2 "add that" "$train_mlp" --quick

page=$work/compare.html
ok "one against one" "${compare[@]}" --html "$page" "$report" "$report"
cp "$work/out" "$work/text"
ok "gives no verdict" grep -q "no verdict: it needs 5 processes a side" "$work/text"
ok "a page that needs nothing else" sh -c "grep -q '<svg' '$page' && ! grep -qE 'src=.?http|href=.?http' '$page'"
same=("$report" "$report" "$report" "$report" "$report")
ok "five against the same five" "${compare[@]}" --html "$page" "${same[@]}" vs "${same[@]}"
cp "$work/out" "$work/text"
ok "are equivalent" grep -q "conclusion training is equivalent" "$work/text"

sed 's/"batch_size":64/"batch_size":65/; s/"batch_size": 64/"batch_size": 65/' "$report" >"$work/other.json"
"${compare[@]}" --html "$page" "$report" "$work/other.json" >"$work/void"
ok "another batch is void" test $? -eq 3
ok "and says so" grep -q "not the same batch size: 64, and 65" "$work/void"

# what a terminal would obey, in a row's name and unit and in what is not equal
for cpu in a b; do
    sed -E 's/("name": ?")epoch"/\1\\u001b[31mrow"/; s/("unit": ?")ns"/\1\\u001b[32mns"/;
        s/("cpu": ?")[^"]*"/\1\\u001b[33m'$cpu'"/' "$report" >"$work/colour_$cpu.json"
done
"${compare[@]}" --html "$page" "$work/colour_a.json" "$work/colour_b.json" >"$work/colours"
ok "colours do not reach the terminal" sh -c "! grep -q '$(printf '\033')' '$work/colours'"
for colour in 31mrow 32mns 33ma 33mb; do
    ok "$colour is shown escaped" grep -qF "\\x1b[$colour" "$work/colours"
done
echo '{}' >"$work/empty.json"
fails "an object without rows" 3 "is no bench.json" "${compare[@]}" --html "$page" "$report" "$work/empty.json"
fails "one file" 2 "expected A.json B.json" "${compare[@]}" "$report"

# a sleep in each step, which the test's build of train_mlp makes when asked
sleepy=$work/sleepy
export NN_SLOW_STEP_US=20000
ok "a run that sleeps" bench "$sleepy" "$PWD/$BUILD/tests/slow_train_mlp"
unset NN_SLOW_STEP_US
"${compare[@]}" --html "$page" "$report" "$sleepy/bench.json" >"$work/out"
waits() { awk '/ms  waiting: a sleep/ {exit !($1 > 10)}' "$work/out"; }
ok "the sleep is found as waiting" waits
finish
