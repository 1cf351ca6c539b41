#!/usr/bin/env bash
# The fault tests of prepare at every call.
cd "$(dirname "$0")" || exit 1
status=0
for test in test_faults_prepare.sh test_commit.sh; do FAULT_STRIDE=1 ./$test || status=1; done
exit $status
