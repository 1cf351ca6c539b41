#!/bin/sh
# Lists the runs in runs/, compares some (scripts/runs.sh compare A B), or writes the log of one as
# CSV (scripts/runs.sh csv A). --help says more.
set -eu
here=$(dirname "$0")/..
make -s -C "$here" build/native/pages/runs >&2
exec "$here/build/native/pages/runs" "$@"
