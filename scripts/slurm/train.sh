#!/usr/bin/env bash
# What the jobs of this folder run: train.sh PROGRAM [OPTION...], one process for each task of the
# job. The run's directory is runs/slurm-JOB. The job goes back into the queue, and then on from its
# newest checkpoint,
#   when its time is over: Slurm sends SIGTERM 120 s before (--signal), the processes save and stop;
#   when a process or a machine was lost (status 1), if a checkpoint was written since it began.
# Slurm itself does so when the machine of this script is lost (--requeue).
set -uo pipefail
if [ $# -eq 0 ] || [ -z "${SLURM_JOB_ID-}" ]; then
    echo "usage: sbatch scripts/slurm/one_node.sbatch PROGRAM [OPTION...]" >&2
    exit 2
fi
run=runs/slurm-$SLURM_JOB_ID
newest() { compgen -G "$run/checkpoints/step_*" | sort | tail -n 1; }

began=$(newest)
if [ -n "$began" ]; then
    command=("$1" --resume "$run")
else
    rm -rf "$run" # of an attempt that came to no checkpoint
    command=("$@" --out "$run")
fi

# How Open MPI's processes find each other; pmi2 for MPICH.
export SLURM_MPI_TYPE=${SLURM_MPI_TYPE:-pmix}
# srun does not take this from the job by itself.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
srun --kill-on-bad-exit=1 "${command[@]}"
status=$?
if [ $status -eq 143 ] || { [ $status -eq 1 ] && [ "$(newest)" != "$began" ]; }; then
    echo "status $status: back into the queue, to go on from $(newest)"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
