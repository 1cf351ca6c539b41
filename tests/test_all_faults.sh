#!/usr/bin/env bash
# The fault test at every file call and every allocation.
FAULT_STRIDE=1 exec "$(dirname "$0")/test_faults.sh"
