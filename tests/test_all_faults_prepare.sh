#!/usr/bin/env bash
# The fault test of prepare at every allocation and every read.
FAULT_STRIDE=1 exec "$(dirname "$0")/test_faults_prepare.sh"
