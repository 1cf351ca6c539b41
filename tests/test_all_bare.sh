#!/usr/bin/env bash
# A few tests where less is there than on most systems: nothing in /sys and /dev/pts, no /proc, one
# processor (test_repeat has up to three threads), and as a user who owns nothing here.
. "$(dirname "$0")/lib.sh"

hidden() { # hidden FOLDERS COMMAND...: the folders are empty to it
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount sh -c 'for f in $0; do mount -t tmpfs none "$f" || exit; done; exec "$@"' "$@"
}
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/tmp "$@"; }

if hidden /sys true 2>/dev/null; then
    for folders in "/sys /dev/pts" "/sys /dev/pts /proc"; do
        for test in checkpoint run_dir sandbox profile; do
            ok "$test without $folders" hidden "$folders" "$BUILD/tests/test_$test"
        done
        for test in cli golden predict; do
            ok "$test without $folders" hidden "$folders" "tests/test_$test.sh"
        done
    done
else
    skip "without /sys, /dev/pts and /proc" "no right to mount"
fi
if [ "$(id -u)" != 0 ]; then
    skip "as a user" "this is one"
elif as_nobody test -x "$train_mlp" 2>/dev/null; then
    for test in cli golden; do ok "$test as a user" as_nobody "tests/test_$test.sh"; done
else
    skip "as a user" "others may not read this folder"
fi
for test in golden repeat resume; do
    ok "$test on one processor" taskset -c "$(taskset -cp $$ | sed -E 's/.*: ([0-9]+).*/\1/')" "tests/test_$test.sh"
done
finish
