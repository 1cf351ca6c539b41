#!/usr/bin/env bash
# The tests again in a build with AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer,
# which end a program at their first finding.
. "$(dirname "$0")/lib.sh"
[ -z "$SANITIZE" ] || { skip "sanitizers" "the whole run has them" && finish; }
names=()
for test in tests/test_*.c tests/test_*.sh; do
    name=$(basename "${test%.*}")
    case $name in
    test_all_*) ;;
    test_doctor | test_open_report | test_slurm | test_gpu_check) skip "$name" "it runs scripts alone" ;;
    test_cuda | test_cuda_faults) skip "$name" "its programs have sanitizers in every build" ;;
    test_accuracy | test_docs | test_repeat) skip "$name" "it would take minutes, and runs what others run" ;;
    test_faults | test_faults_prepare) skip "$name" "its shim is a second malloc" ;;
    *) names+=("$name") ;;
    esac
done
make -s test SANITIZE=1 ONLY="${names[*]}" || miss "make test SANITIZE=1"
finish
