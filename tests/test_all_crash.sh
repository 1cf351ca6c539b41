#!/usr/bin/env bash
# The crash test with 100 kills.
CRASH_ROUNDS=100 exec "$(dirname "$0")/test_crash.sh"
