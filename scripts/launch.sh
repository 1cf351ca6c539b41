#!/usr/bin/env bash
# Starts a trainer as several processes on this machine, each with its share of every batch.
#   scripts/launch.sh --gpus 4 ./train_cnn --data data/cifar10
#   scripts/launch.sh --processes 2 ./train_mlp
# No more than the mpirun command that it prints; docs/distributed.md tells of several machines.
set -u

usage() {
    echo "usage: scripts/launch.sh --gpus N|--processes N PROGRAM [OPTIONS]" >&2
    exit 2
}

[ $# -ge 3 ] && [[ $2 =~ ^[1-9][0-9]*$ ]] || usage
count=$2
case $1 in
--gpus) device=(--device cuda) ;;
--processes) device=() ;;
*) usage ;;
esac
shift 2

if ! command -v mpirun >/dev/null; then
    echo "launch.sh: no mpirun: install openmpi-bin and libopenmpi-dev, and run make again" >&2
    exit 1
fi
# Processes that are bound to one processor each would leave the others idle.
launcher=(mpirun -np "$count")
if mpirun --version 2>&1 | grep -q 'Open MPI\|OpenRTE'; then
    launcher+=(--quiet --bind-to none --oversubscribe)
    if [ "$(id -u)" = 0 ]; then launcher+=(--allow-run-as-root); fi
fi

set -- "${launcher[@]}" "$@" "${device[@]}"
echo "$*" >&2
"$@"
status=$?
# Not the trainer's own (docs/runs.md): a process was killed.
case $status in
[0-6] | 130 | 143) exit $status ;;
*) exit 1 ;;
esac
