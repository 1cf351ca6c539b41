#!/usr/bin/env bash
# Includes follow the table of docs/architecture.md, and no files include each other in a circle.
. "$(dirname "$0")/lib.sh"
sources() {
    ls ./*.c
    find base kernels data train pages -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh'
}
# "FROM TO" for each include of ours, from the top. The CUDA files' test double does not count.
sources | xargs awk '/^ *# *include "/ && split($0, a, "\"") && a[2] !~ /^tests\// {
    file = FILENAME; sub(/^\.\//, "", file); print file, a[2]}' >"$work/includes"
ok "there are includes" test "$(wc -l <"$work/includes")" -gt 300

allowed() { # allowed INCLUDES: each is in the table
    awk 'function folder(file) {return sub(/[^\/]*$/, "", file) && file ? file : "./"}
         FNR == NR && /^\| `[a-z.\/]+` \|/ {
             split($0, cell, "|"); from = cell[2]; gsub(/[` ]/, "", from)
             known[from] = may[from, from] = 1
             for (i = split(cell[4], to, " "); i > 0; i--) {gsub(/`/, "", to[i]); may[from, to[i]] = 1}
         }
         FNR == NR {next}
         !known[folder($1)] {print folder($1) " is not in the table" >"/dev/stderr"; bad = 1; next}
         !may[folder($1), folder($2)] {print $1 " may not include " $2 >"/dev/stderr"; bad = 1}
         END {exit bad}' docs/architecture.md "$1"
}
files() { sed -E 's/\.(c|h|cu|cuh)( |$)/\2/g' "$1"; } # x.c and x.h are one
folders() { sed -E 's,[^/ ]*( |$),.\1,g' "$1" | sort -u; }
no_circle() { awk '$1 != $2' | tsort >"$work/sorted"; } # from stdin
no_circle_of_files() { files "$1" | no_circle; }
no_circle_of_folders() { folders "$1" | no_circle; }
not() { ! "$@"; }

ok "every include is in the table" allowed "$work/includes"
ok "no circle of files" no_circle_of_files "$work/includes"
ok "no circle of folders" no_circle_of_folders "$work/includes"

# What these do not let pass.
wrong() { { cat "$work/includes" && echo "$1"; } >"$work/wrong"; }
wrong "base/os.c train/run.h"
fails "an include upwards" 1 "base/os.c may not include train/run.h" allowed "$work/wrong"
ok "a circle of folders" not no_circle_of_folders "$work/wrong"
wrong "base/error.h base/json.h"
ok "a circle of files" not no_circle_of_files "$work/wrong"
wrong "attic/a.c base/os.h"
fails "a folder that is not there" 1 "attic/ is not in the table" allowed "$work/wrong"
finish
