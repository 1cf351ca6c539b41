# shellcheck shell=bash
# Sourced after lib.sh by the tests that start several processes:
#   ranks N COMMAND...   under mpirun, more of them than there are processors if need be
# As root too, and with Open MPI 4 and 5 and MPICH alike.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
export HYDRA_BINDING=none

if ! command -v mpirun >/dev/null || [ ! -e "$BUILD/libnn_mpi.so" ]; then
    skip "several processes" "it needs MPI: scripts/setup.sh installs it"
    finish
fi
ranks() {
    local n=$1
    shift
    mpirun -np "$n" "$@"
}

# curves_agree RUN RUN TOLERANCE: every loss, of steps and of tests, relative to the other's.
all_losses() { sed -nE 's/.*"(test_)?loss": ?([0-9.e+-]+).*/\2/p' "$1/log.jsonl"; }
curves_agree() {
    paste -d' ' <(all_losses "$1") <(all_losses "$2") |
        awk -v tolerance="$3" '{d = $1 - $2; if (d < 0) d = -d; print
            if (NF != 2 || !(d <= tolerance * $2)) bad = 1}
            END {exit bad || NR < 3}'
}
