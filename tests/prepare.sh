# shellcheck shell=bash
# Sourced by the tests of data/prepare: a directory to work in, counting, and bytes.
#   accepts NAME ARGUMENTS    refuses NAME STATUS MESSAGE ARGUMENTS    equal NAME EXPECTED FOUND
set -u
export LC_ALL=C
prepare=$(realpath "${1:-${BUILD:-build/native}/data/prepare}")
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); printf 'FAILED %s\n' "$*"; }
skip() { skipped=$((skipped + 1)); printf 'skipped: %s\n' "$*"; }

# accepts NAME ARGUMENTS: status 0, the data set is intact and no temporary directory is left.
accepts() {
    local name=$1
    shift
    rm -rf out
    if ! "$prepare" "$@" --out out >stdout 2>stderr; then
        fail "$name: $(cat stderr)"
    elif ! "$prepare" check out >stdout 2>stderr; then
        fail "$name: check: $(cat stderr)"
    elif [ -e .out.tmp ]; then
        fail "$name: .out.tmp is left"
    else
        pass
    fi
}

# refuses NAME STATUS MESSAGE ARGUMENTS: that status, one line with the message, nothing left.
refuses() {
    local name=$1 status=$2 message=$3 got
    shift 3
    rm -rf out
    timeout 20 "$prepare" "$@" >stdout 2>stderr
    got=$?
    if [ $got != "$status" ]; then
        fail "$name: status $got, expected $status: $(cat stderr)"
    elif [ "$(wc -l <stderr)" != 1 ] || ! grep -q '^error: ' stderr; then
        fail "$name: not one line: $(cat stderr)"
    elif ! grep -qF -- "$message" stderr; then
        fail "$name: \"$(cat stderr)\" lacks \"$message\""
    elif [ -e out ] || [ -e .out.tmp ]; then
        fail "$name: something is left behind"
    else
        pass
    fi
}

equal() { # NAME EXPECTED FOUND
    if [ "$2" = "$3" ]; then pass; else fail "$1: found \"$3\", expected \"$2\""; fi
}

bytes() { # FILE OFFSET COUNT: as hexadecimal
    od -An -v -tx1 -j"$2" -N"$3" "$1" | tr -d ' \n'
}

image_offset() { od -An -tu8 -j96 -N8 "$1" | tr -d ' '; }

be32() { printf "\\x$(printf %02x $(($1 >> 24 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 & 255)))"; }
le32() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 24 & 255)))"; }
fill() { head -c "$2" /dev/zero | tr '\0' "\\$(printf %03o "$1")"; } # VALUE COUNT

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
    exit
}
