#!/usr/bin/env bash
# Three hosts, pretended with network namespaces: a job over TCP gives the losses of one process, and
# a cable that is pulled ends it on all of them, with checkpoints that continue.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/mpi.sh"

# ---- the hosts: $net-0 ... $net-2 at a bridge in $net -------------------------------------------
# Their TCP gives up after half a minute instead of a quarter of an hour, for which mpirun would wait
# after the trainers have ended.
net=nn$$
hosts=3
# What Open MPI takes for ssh: 10.77.0.1N COMMAND...
cat >"$work/enter" <<END
#!/usr/bin/env bash
host=\${1#10.77.0.1}
shift
exec ip netns exec "$net-\$host" unshare --uts bash -c "hostname $net-\$host; \$*"
END
chmod +x "$work/enter"
in_hosts() { # the processes there
    for ((i = 0; i < hosts; i++)); do ip netns pids "$net-$i" 2>/dev/null; done
}
trainers() {
    local n=0 p
    for p in $(in_hosts); do [ "$(cat "/proc/$p/comm" 2>/dev/null)" != train_mlp ] || n=$((n + 1)); done
    echo $n
}
remove_hosts() {
    local processes
    mapfile -t processes < <(in_hosts)
    [ ${#processes[@]} -eq 0 ] || kill -KILL "${processes[@]}" 2>/dev/null
    for ((i = 0; i < hosts; i++)); do ip netns del "$net-$i"; done 2>/dev/null
    ip netns del "$net" 2>/dev/null
    rm -rf "$work"
}
add_host() {
    ip netns add "$net-$1" && ip -n "$net-$1" link set lo up &&
        ip link add eth0 netns "$net-$1" type veth peer name "port$1" netns "$net" &&
        ip netns exec "$net-$1" sysctl -qw net.ipv4.tcp_retries2=5 &&
        ip -n "$net-$1" addr add "10.77.0.1$1/24" dev eth0 && ip -n "$net-$1" link set eth0 up &&
        ip -n "$net" link set "port$1" master bridge up
}
add_hosts() {
    ip netns add "$net" && ip link add bridge netns "$net" type bridge && ip -n "$net" link set bridge up || return
    for ((i = 0; i < hosts; i++)); do add_host $i || return; done
}

if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then
    skip "several hosts" "pretending them takes root and ip (iproute2)"
    finish
fi
if ! mpirun --version | grep -q 'Open MPI'; then
    skip "several hosts" "the options of mpirun are Open MPI's"
    finish
fi
trap remove_hosts EXIT
if ! add_hosts 2>"$work/err"; then
    skip "several hosts" "no network namespaces here: $(head -n 1 "$work/err")"
    finish
fi

# job COMMAND...: a rank on each host, from the first.
job() {
    timeout -s KILL 120 "$work/enter" 10.77.0.10 mpirun -np $hosts --host 10.77.0.10,10.77.0.11,10.77.0.12 \
        --mca plm_rsh_agent "$work/enter" --mca oob_tcp_if_include eth0 --mca btl_tcp_if_include eth0 "$@"
}

# ---- the same losses ----------------------------------------------------------------------------
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
mlp=("$train_mlp" --data "$work/grey" --hidden 24 --batch-size 12 --device cpu --seed 3)
losses() { sed -nE 's/.*"loss": ?([0-9.e+-]+).*/\1/p' "$1/log.jsonl"; }
# Sums in another order: 2^-24 * sqrt(terms, 4096) * layers (2), amplified by ten steps: 1e-4.
same_losses() {
    paste -d' ' <(losses "$1") <(losses "$2") |
        awk '{d = $1 - $2; if (d < 0) d = -d; if (NF != 2 || !(d <= 1e-4 * $2)) bad = 1} END {exit bad || NR != 10}'
}
ok "one process" "${mlp[@]}" --steps 10 --quiet --out "$work/one"
ok "three hosts" job "${mlp[@]}" --steps 10 --out "$work/three"
cp "$work/out" "$work/three.out"
ok "one rank on each" grep -q "ranks    3 of 4 images a step, 1 on this machine" "$work/three.out"
ok "the same losses" same_losses "$work/three" "$work/one"

# ---- a cable is pulled --------------------------------------------------------------------------
job "${mlp[@]}" --steps 100000000 --save-every 500 --quiet --out "$work/cut" >"$work/cut.out" 2>&1 &
launcher=$!
began=$SECONDS
until [ -e "$work/cut/checkpoints/step_00001000" ] || [ $((SECONDS - began)) -gt 60 ]; do sleep 0.1; done
ip -n "$net" link set port2 down
began=$SECONDS
until [ "$(trainers)" = 0 ] || [ $((SECONDS - began)) -gt 90 ]; do sleep 0.5; done
took=$((SECONDS - began))
wait $launcher
status=$?
echo "a pulled cable: the trainers ended after $took s, mpirun after $((SECONDS - began)) s"
ok "a pulled cable: status 1" test $status -eq 1
ok "a pulled cable: all end within 60 s" test $took -le 60
names_the_rank() {
    cat "$work/cut.out"
    [ "$(grep -c 'error: .*rank [02] of 3 was not heard of' "$work/cut.out")" = 1 ]
}
ok "a pulled cable: one line names the rank" names_the_rank
ip -n "$net" link set port2 up
timeout --preserve-status -s TERM 5 "$train_mlp" --resume "$work/cut" --quiet
ok "a pulled cable: the checkpoint continues" test $? -eq 143
finish
