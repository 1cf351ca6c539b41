#!/usr/bin/env bash
# Opens the report of a run in a browser: inside WSL in Windows', else in the desktop's. Where there
# is none it prints the page's path. A page older than what it shows is drawn anew.
#   scripts/open_report.sh [RUN]     default: the run whose report is newest in runs/
set -euo pipefail
version=${NN_PROC_VERSION:-/proc/version} # for tests

if [ $# -gt 1 ] || [[ ${1-} == -* ]]; then
    echo "usage: scripts/open_report.sh [RUN]" >&2
    exit 2
fi
run=${1-}
if [ -z "$run" ]; then
    for report in runs/*/report.html; do
        [ -e "$report" ] && { [ -z "$run" ] || [ "$report" -nt "$run/report.html" ]; } && run=${report%/*}
    done
fi
if [ -z "$run" ]; then
    echo "error: no run in runs/ has a report.html; name a run's directory, or train one first" >&2
    exit 3
fi
page=$run/report.html
[ ! -f "$run" ] || page=$run
draw=${NN_RUNS:-${BASH_SOURCE[0]%/*}/../build/native/pages/runs} # NN_RUNS: for tests
if [ "${page%/*}/report.safetensors" -nt "$page" ] && [ -x "$draw" ]; then
    "$draw" page "${page%/*}" >/dev/null || :
fi
if [ ! -e "$page" ]; then
    echo "error: there is no $page; name a run's directory (a run with --report off has none)" >&2
    exit 3
fi
page=$(realpath "$page")

# Explorer ends with status 1 also when it has opened the page.
open_in_windows() {
    local explorer
    if command -v wslview >/dev/null; then
        wslview "$page"
    elif command -v wslpath >/dev/null &&
        explorer=$(command -v explorer.exe || command -v /mnt/c/Windows/explorer.exe); then
        "$explorer" "$(wslpath -w "$page")" || :
    else
        return 1
    fi
}

on_desktop() { [ -n "${DISPLAY-}${WAYLAND_DISPLAY-}" ] && command -v xdg-open >/dev/null; }

if grep -qi microsoft "$version" 2>/dev/null && open_in_windows; then
    echo "opened $page in Windows' browser"
elif on_desktop && xdg-open "$page"; then
    echo "opened $page"
else
    echo "$page"
fi
