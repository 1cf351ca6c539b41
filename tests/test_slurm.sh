#!/usr/bin/env bash
# The Slurm jobs (scripts/slurm): their directives, and their body with a pretended srun, which runs
# one process. A job that ran out of time, or lost a process, is queued again and continues.
. "$(dirname "$0")/lib.sh"
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
cp -r scripts "$work"
mkdir "$work/bin"
# As $work/limit says: fails at once, runs to the end, or sends SIGTERM once there is a new checkpoint.
# Status 1 where $work/lost is.
cat >"$work/bin/srun" <<END
#!/usr/bin/env bash
echo "\$SLURM_MPI_TYPE \$SRUN_CPUS_PER_TASK \$*" >>"$work/srun.calls"
while [[ \$1 == -* ]]; do shift; done
newest() { ls -t "$work/runs/slurm-\$SLURM_JOB_ID/checkpoints" 2>/dev/null | head -n 1; }
limit=\$(cat "$work/limit") before=\$(newest)
[ "\$limit" != failure ] || exit 1
"\$@" &
while [ "\$limit" = checkpoint ] && [ "\$(newest)" = "\$before" ] && kill -0 \$!; do sleep 0.05; done
[ "\$limit" != checkpoint ] || kill -s TERM \$!
wait \$!
status=\$?
[ ! -e "$work/lost" ] || exit 1
exit \$status
END
cat >"$work/bin/scontrol" <<END
#!/usr/bin/env bash
echo "\$*" >>"$work/scontrol.calls"
END
chmod +x "$work/bin"/*
cd "$work" || exit 1

# job SCRIPT ID OPTION...: as Slurm starts it, from a copy in a folder of its own.
job() {
    local script=$1 id=$2
    shift 2
    cp "scripts/slurm/$script" spooled
    : >scontrol.calls
    : >srun.calls
    env PATH="$PWD/bin:$PATH" SLURM_JOB_ID="$id" SLURM_CPUS_PER_TASK=3 bash ./spooled "$train_mlp" --data grey \
        --hidden 8 --quiet "$@"
}
requeued() { [ "$(cat scontrol.calls)" = "requeue $1" ]; }
directives() { sed -nE 's/^#SBATCH --([a-z-]+)(=.*)?$/\1/p' "scripts/slurm/$1" | sort | tr '\n' ' '; }
has_directives() { # all lines are whole, and among them those that a continued run needs
    [ "$(grep -c '^#SBATCH' "scripts/slurm/$1")" -eq "$(directives "$1" | wc -w)" ] &&
        grep -qx '#SBATCH --requeue' "scripts/slurm/$1" && grep -qx '#SBATCH --signal=TERM@120' "scripts/slurm/$1" &&
        grep -qx '#SBATCH --open-mode=append' "scripts/slurm/$1"
}
steps() { sed -nE 's/.*"steps": ?([0-9]+).*/\1/p' "$1/summary.json" | head -n 1; }

for script in one_node.sbatch several_nodes.sbatch; do
    ok "$script: directives" has_directives "$script"
    echo end >limit
    ok "$script: a run" job "$script" "${#script}" --steps 12 --batch-size 8
    ok "$script: done, not queued again" test ! -s scontrol.calls -a "$(steps "runs/slurm-${#script}")" = 12
done
ok "the launcher's settings" grep -q '^pmix 3 --kill-on-bad-exit=1 ' srun.calls

echo checkpoint >limit
job one_node.sbatch 7 --steps 100000000 --batch-size 8 --save-every 1000 >/dev/null 2>&1
ok "out of time: saved and queued again" test $? -eq 143 -a "$(cat scontrol.calls)" = "requeue 7"
job one_node.sbatch 7 --steps 100000000 --batch-size 8 --save-every 1000 >/dev/null 2>&1
ok "continued" grep -q -- "$train_mlp --resume runs/slurm-7" srun.calls
ok "and queued once more" requeued 7

touch lost
job one_node.sbatch 8 --steps 100000000 --batch-size 8 --save-every 1000 >/dev/null 2>&1
ok "a process lost after a checkpoint: queued again" requeued 8
echo failure >limit
job one_node.sbatch 8 --steps 100000000 --batch-size 8 --save-every 1000 >/dev/null 2>&1
ok "lost again before a new one: not" test ! -s scontrol.calls
rm lost
echo end >limit
job one_node.sbatch 9 --steps 5 --batch-size 3000000 >/dev/null 2>&1
ok "a mistake of the user: not queued again" test ! -s scontrol.calls -a ! -e runs/slurm-9/summary.json
fails "without a program" 2 "usage: sbatch" env SLURM_JOB_ID=1 scripts/slurm/train.sh
fails "without Slurm" 2 "usage: sbatch" env -u SLURM_JOB_ID scripts/slurm/train.sh "$train_mlp"
finish
