#!/usr/bin/env bash
# Several processes: 1 to 4 ranks on every network and optimizer, and what happens when a rank is
# killed, stopped, asked to stop or fails: all end within a minute, and the run goes on.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/mpi.sh"
export ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0 # what MPI leaves allocated is MPI's
"$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
launch=$PWD/scripts/launch.sh
cd "$work" || exit 1

# ---- the same curve ----
same_curve() { # same_curve NAME PROGRAM OPTIONS...
    local name=$1
    shift
    for n in 1 2 3 4; do ok "$name on $n ranks" ranks $n "$@" --batch-size 12 --steps 12 --quiet --out "$name-$n"; done
    for n in 2 3 4; do ok "$name on $n ranks: the losses of one" curves_agree "$name-$n" "$name-1" 1e-5; done
    ok "$name on 4 ranks again" ranks 4 "$@" --batch-size 12 --steps 12 --quiet --out "$name-again"
    ok "$name on 4 ranks again, the same bits" cmp "$name-4/model.safetensors" "$name-again/model.safetensors"
}
same_curve mlp-adamw "$train_mlp" --data grey --hidden "24,16"
same_curve mlp-muon "$train_mlp" --data grey --hidden "24,16" --optimizer muon --clip-norm 0.5
same_curve plain "$train_cnn" --data grey --net plain --width 0.5 --augment "translate=2,cutout=4"
same_curve cnn "$train_cnn" --data colour --width 0.125 --lr 0.01 --ema on
same_curve airbench "$train_airbench" --data colour --width 0.125 --tta 2 --lr 0.01 --ema on
same_curve airbench-sgd "$train_airbench" --data colour --width 0.125 --tta 0 --lr 0.01 --optimizer sgd --clip-norm 1

# ---- faults ----
for_ever=("$train_mlp" --data grey --hidden "24,16" --batch-size 12 --steps 100000000 --save-every 500 --quiet)

# begin DIR COMMAND...: in the background; returns once there is a checkpoint. pids[rank] is set.
begin() {
    local dir=$1 found
    shift
    "$@" --out "$dir" >told.out 2>told & # the launcher's own words, too
    job=$!
    for _ in $(seq 300); do
        compgen -G "$dir/checkpoints/step_*" >/dev/null && break
        sleep 0.1
    done
    pids=()
    for found in $(pgrep -f -- "--out $dir\$"); do
        local rank
        rank=$(tr '\0' '\n' <"/proc/$found/environ" 2>/dev/null | sed -nE 's/^(OMPI_COMM_WORLD_RANK|PMI_RANK)=//p' | head -n 1)
        [ -n "$rank" ] && pids[rank]=$found
    done
}

# ended SECONDS: the job ends by then; `status` is set. What is left then is killed.
ended() {
    for _ in $(seq $(($1 * 10))); do
        kill -0 $job 2>/dev/null || break
        sleep 0.1
    done
    ok_in_time=true
    if kill -0 $job 2>/dev/null; then
        ok_in_time=false
        kill -9 $job "${pids[@]}" 2>/dev/null
    fi
    wait $job 2>/dev/null
    status=$?
}
none_left() {
    for _ in $(seq 50); do
        kill -0 "${pids[@]}" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}
# MPICH's mpirun ends the others of a killed process itself, before they have noticed, and tells of it.
killed_by_mpich() { [ "$signal" = KILL ] && grep -q "BAD TERMINATION" told told.out; }
named() { [ "$(grep -c "^error: rank [0-9]" told)" -eq 1 ] && grep -q "^error: rank $1 of 3 " told; }
goes_on() { # goes_on DIR RANKS: some steps from the newest checkpoint
    local newest
    newest=$(find "$1/checkpoints" -name 'step_*' | sort | tail -n 1)
    ranks "$2" "$train_mlp" --resume "$1" --quiet >/dev/null 2>&1 &
    local job=$!
    for _ in $(seq 300); do
        [ "$(find "$1/checkpoints" -name 'step_*' | sort | tail -n 1)" \> "$newest" ] && break
        sleep 0.1
    done
    pgrep -f -- "--resume $1 " | while read -r pid; do kill -TERM "$pid" 2>/dev/null; done
    wait $job
    [ "$(find "$1/checkpoints" -name 'step_*' | sort | tail -n 1)" \> "$newest" ]
}

# A thread that trains and hangs alone, beside the others: the shim of slow_train_mlp sleeps in the
# second of three ranks, for longer than the test takes.
mkdir hangs
cp "$OLDPWD/$BUILD"/{tests/slow_train_mlp,libnn_mpi.so} hangs
cat >hangs/rank <<'END'
#!/usr/bin/env bash
if [ "${OMPI_COMM_WORLD_RANK-}${PMI_RANK-}" = 1 ]; then export NN_SLOW_STEP_US=300000000; fi
exec "${0%/rank}/slow_train_mlp" "$@"
END
chmod +x hangs/rank
(
    began=$SECONDS
    timeout 100 "$launch" --processes 3 "$PWD/hangs/rank" "${for_ever[@]:1}" --out hung 2>hung.told
    echo "$? $((SECONDS - began))" >hung.ended
) &
hung=$!

for signal in KILL STOP; do
    victim=$((RANDOM % 3))
    begin "run-$signal" "$launch" --processes 3 "${for_ever[@]}"
    if [ ${#pids[@]} -ne 3 ]; then
        miss "SIG$signal: ${#pids[@]} processes for 3: $(cat told.out told)"
        continue
    fi
    kill -$signal "${pids[victim]}"
    ended 60
    ok "SIG$signal of rank $victim: all end within 60 s" $ok_in_time
    ok "SIG$signal: no process is left" none_left
    ok "SIG$signal: status 1" test $status -eq 1
    ok "SIG$signal: one line names the rank" eval "named $victim || killed_by_mpich"
    for n in 1 2 4; do
        cp -r "run-$signal" "run-$signal-$n"
        ok "SIG$signal: goes on with $n" goes_on "run-$signal-$n" $n
    done
done

wait $hung
read -r status took <hung.ended
ok "a thread hangs: all end within 60 s" test "$took" -le 60
ok "a thread hangs: status 1" test "$status" -eq 1
ok "a thread hangs: one line names the rank" test "$(grep '^error: rank' hung.told | cut -d';' -f1)" = "error: rank 1 of 3 has stood still for 30 seconds"

# A signal to one rank: all save and leave.
begin stopped "$launch" --processes 3 "${for_ever[@]}"
kill -TERM "${pids[1]}"
ended 60
ok "SIGTERM of rank 1: all stop" $ok_in_time
ok "SIGTERM of rank 1: status" test $status -eq 143
ok "SIGTERM of rank 1: a summary" grep -q '"stopped_by_signal": *15' stopped/summary.json

# A rank that cannot go on ends all with its status and its message.
begin full "$launch" --processes 3 "${for_ever[@]}"
rm -r full/checkpoints
touch full/checkpoints # no directory any more
ended 60
ok "no checkpoint can be written: all end" $ok_in_time
ok "no checkpoint can be written: status" test $status -eq 4
ok "no checkpoint can be written: told once" test "$(grep -c '^error: ' told)" -eq 1

# Divergence is found on several ranks as on one.
grows=("$train_mlp" --data grey --batch-size 8 --hidden 12 --quiet --weight-decay 10 --lr 1000 --schedule constant --steps 300)
"${grows[@]}" --out nan-1 2>one
ranks 2 "${grows[@]}" --out nan-2 2>told
ok "divergence on 2 ranks: status" test $? -eq 6
# But for the size of the batch, which each rank has its share of.
ok "divergence on 2 ranks: the place that one finds" grep -qF "$(sed 's/ ([^(]*$//' one)" told
finish
