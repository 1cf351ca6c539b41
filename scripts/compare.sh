#!/bin/sh
# Compares timing reports: scripts/compare.sh A.json B.json, or several of each with "vs" between
# them. --help says more; docs/timing.md explains the figures.
set -eu
exec "$(dirname "$0")/runs.sh" timing "$@"
