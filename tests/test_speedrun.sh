#!/usr/bin/env bash
# --speedrun: its runs are those of a process of its own each, its mean and sigma are theirs, its
# clocks add up; a signal leaves what was finished; options that do not go with it are refused.
. "$(dirname "$0")/lib.sh"

small=(--width 0.125 --batch-size 40 --steps 6 --tta 1 --threads 1)
if [ -n "$SANITIZE" ]; then # few small images serve there
    "$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
    small+=(--data "$work/colour" --batch-size 16)
fi

# A number of speedrun.json: its NTH KEY.
nth() { grep -oE "\"$2\":[^,}]+" "$work/$1/speedrun.json" | sed -n "$3s/.*://p"; }

ok "three seeds" "$train_airbench" "${small[@]}" --ema on --speedrun --seeds 3 --seed 5 --out "$work/three" --quiet
for i in 0 1 2; do
    ok "seed $((5 + i)) alone" "$train_airbench" "${small[@]}" --ema on --seed $((5 + i)) --out "$work/alone-$i" --quiet
done
# The first of the list is the cold run.
same_accuracies() {
    for i in 0 1 2; do
        [ "$(nth three seed $((i + 2)))" = $((5 + i)) ] || return 1
        for key in test_accuracy test_loss; do
            awk -v a="$(nth three $key $((i + 2)))" -v b="$(number "$work/alone-$i" $key)" \
                'BEGIN {d = a - b; exit !(b != "" && d * d < 1e-10 * b * b)}' || return 1
        done
    done
}
ok "accuracies and losses are those of the runs alone" same_accuracies
ok "the cold run is that of the first seed" test "$(nth three test_loss 1)" = "$(nth three test_loss 2)"
statistics() {
    for i in 0 1 2; do number "$work/alone-$i" test_accuracy; done |
        awk -v mean="$(nth three accuracy_mean 1)" -v sigma="$(nth three accuracy_sigma 1)" \
            -v standard_error="$(nth three accuracy_standard_error 1)" '
            function near(a, b) {return (a - b) ^ 2 < 1e-11}
            {x[NR] = $1; sum += $1}
            END {
                m = sum / 3
                for (i = 1; i <= 3; i++) squares += (x[i] - m) ^ 2
                s = sqrt(squares / 2)
                exit !(s > 0 && near(m, mean) && near(s, sigma) && near(s / sqrt(3), standard_error))
            }'
}
ok "mean, sigma and standard error" statistics
clocks() {
    awk -v all="$(nth three seconds 2)" -v i="$(nth three init_seconds 2)" -v t="$(nth three train_seconds 2)" \
        -v e="$(nth three evaluate_seconds 2)" -v first="$(nth three seconds 1)" -v cold="$(nth three cold_seconds 1)" \
        'BEGIN {d = all - i - t - e; exit !(d * d < 1e-8 && all > 0 && cold >= first - 0.02)}'
}
ok "the parts of a run add up; a cold start includes its run" clocks
ok "it says that it is complete" grep -q '"complete":true' "$work/three/speedrun.json"
ok "one seed has no sigma" "$train_mlp" --speedrun --seeds 1 --steps 5 --hidden 16 --out "$work/one" --quiet
ok "which is null" test "$(nth one accuracy_sigma 1)" = null

stopped() {
    "$train_airbench" "${small[@]}" --speedrun --seeds 1000 --out "$work/stopped" >"$work/said" 2>&1 &
    local pid=$!
    for _ in $(seq 600); do
        if grep -q '^warm ' "$work/said"; then break; fi
        sleep 0.05
    done
    kill -INT $pid
    wait $pid
    [ $? -eq 130 ]
}
ok "SIGINT ends it with status 130" stopped
ok "speedrun.json says so" grep -q '"complete":false,"stopped_by_signal":2' "$work/stopped/speedrun.json"
ok "and has the runs that were finished" test "$(nth stopped runs 1)" != ""
ok "so does the output" grep -q '^stopped by signal 2 after [1-9][0-9]* of 1000 runs' "$work/said"

fails "a missed mean" 1 "is below --target-accuracy" \
    "$train_mlp" --speedrun --seeds 1 --steps 1 --hidden 8 --target-accuracy 1 --out "$work/missed" --quiet
fails "--seeds alone" 2 "--speedrun" "$train_airbench" --seeds 3
fails "no seeds" 2 "--seeds" "$train_airbench" --speedrun --seeds 0
fails "too many seeds" 2 "1000" "$train_airbench" --speedrun --seeds 1001
for option in --bench --selftest --profile "--resume $work/three" "--init x"; do
    # shellcheck disable=SC2086 # an option with its value
    fails "not with $option" 2 "leave out ${option%% *}" "$train_airbench" --speedrun $option
done
finish
