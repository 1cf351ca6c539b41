#!/bin/sh
# Compares timing reports: scripts/compare.sh A.json B.json, or several of each with "vs" between
# them. --help says more; docs/timing.md explains the figures.
set -eu
here=$(dirname "$0")/..
make -s -C "$here" build/native/bench/compare_runs >&2
exec "$here/build/native/bench/compare_runs" "$@"
