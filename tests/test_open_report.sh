#!/usr/bin/env bash
# scripts/open_report.sh on pretended systems: which command opens which path.
. "$(dirname "$0")/lib.sh"
open=$PWD/scripts/open_report.sh
cd "$work" || exit 1
mkdir -p tools bin "runs/old" "runs/a new one" elsewhere
for tool in bash env grep realpath; do ln -s "$(command -v $tool)" tools/$tool; done
echo old >runs/old/report.html
touch -d '1 hour ago' runs/old/report.html
echo new >"runs/a new one/report.html"
echo 'Linux version 6.1.0 (debian)' >linux
echo 'Linux version 5.15.153.1-microsoft-standard-WSL2' >wsl

command_says() { # command_says NAME [STATUS]: notes how it is called
    printf '#!/bin/sh\necho "%s $*" >>"%s"\nexit %s\n' "$1" "$work/called" "${2:-0}" >"bin/$1"
    chmod +x "bin/$1"
}
system() { # system NAME COMMAND...: forgets the commands of the last one
    version=$1
    shift
    rm -f bin/* called
    for name; do command_says "$name"; done
    printf '#!/bin/sh\necho "W:$2"\n' >bin/wslpath
    [ "$version" = wsl ] && chmod +x bin/wslpath
}
opens() { # opens NAME EXPECTED OPTIONS...
    local name=$1 expected=$2
    shift 2
    : >called
    PATH=$work/bin:$work/tools NN_PROC_VERSION=$version "$@" >out 2>err
    if [ $? -eq 0 ] && [ "$(cat called)" = "$expected" ]; then pass "$name"; else miss "$name: $(cat called out err)"; fi
}

page="$work/runs/a new one/report.html"
system wsl wslview explorer.exe xdg-open
opens "WSL: wslview" "wslview $page" env DISPLAY=:0 "$open"
system wsl explorer.exe xdg-open
opens "WSL: Explorer, a Windows path" "explorer.exe W:$page" env DISPLAY=:0 "$open"
command_says explorer.exe 1
opens "WSL: Explorer's status is none" "explorer.exe W:$page" "$open"
system wsl xdg-open
opens "WSL without Windows' commands: the desktop" "xdg-open $page" env DISPLAY=:0 "$open"
system linux wslview xdg-open
opens "Linux: xdg-open" "xdg-open $work/runs/old/report.html" env WAYLAND_DISPLAY=wayland-0 "$open" runs/old
opens "Linux: a page itself" "xdg-open $work/runs/old/report.html" env DISPLAY=:0 "$open" runs/old/report.html
opens "no desktop: nothing is started" "" env -u DISPLAY -u WAYLAND_DISPLAY "$open"
ok "no desktop: the path" test "$(cat out)" = "$page"
system linux
opens "no xdg-open" "" env DISPLAY=:0 "$open"
ok "no xdg-open: the path" test "$(cat out)" = "$page"
command_says xdg-open 3
opens "xdg-open fails" "xdg-open $page" env DISPLAY=:0 "$open"
ok "xdg-open fails: the path" test "$(cat out)" = "$page"
# A page older than its facts is drawn anew, by a program that makes it.
printf '#!/bin/sh\necho new >"$2/report.html"\n' >draw
chmod +x draw
mkdir runs/facts
touch runs/facts/report.safetensors
system linux xdg-open
facts="xdg-open $work/runs/facts/report.html"
opens "facts without a page" "$facts" env DISPLAY=:0 NN_RUNS="$work/draw" "$open" runs/facts
echo drawn >runs/facts/report.html
touch -d '1 hour ago' runs/facts/report.safetensors
opens "a page of its facts" "$facts" env DISPLAY=:0 NN_RUNS="$work/draw" "$open" runs/facts
ok "is not drawn again" grep -qx drawn runs/facts/report.html
touch -d '2 hours ago' runs/facts/report.html
opens "an older one" "$facts" env DISPLAY=:0 NN_RUNS="$work/draw" "$open" runs/facts
ok "is" grep -qx new runs/facts/report.html
touch -d '2 hours ago' runs/facts/report.html
opens "without the program the old page" "$facts" env DISPLAY=:0 NN_RUNS="$work/none" "$open" runs/facts
fails "a run without a report" 3 "elsewhere/report.html" "$open" elsewhere
fails "two runs" 2 "usage" "$open" runs/old elsewhere
fails "an option" 2 "usage" "$open" --help
cd elsewhere || exit 1
fails "no run" 3 "no run in runs/" "$open"
finish
