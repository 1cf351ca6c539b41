#!/usr/bin/env bash
# scripts/download.sh from end to end against a server on 127.0.0.1, with small data of its own: a
# copy of the script in a tree of its own, in which the sums of the real files are replaced.
# shellcheck disable=SC1091,SC2154,SC2317 # lib.sh sets variables and calls the functions
. "$(dirname "$0")/lib.sh"
for program in python3 curl; do
    if ! command -v $program >/dev/null; then
        skip downloads "$program is not installed"
        finish
    fi
done
export no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
golden=$PWD/tests/golden
served=$work/served
tree=$work/tree
requests=$work/requests

# Serves /MODE/PATH from served/PATH: good, whole (no ranges), broken (4000 bytes or a half, then
# the connection ends), half (that, and no ranges), stall (half, then silence), corrupt (one byte
# differs), moved (redirects to good), away (redirects to another protocol).
cat >"$work/server.py" <<'END'
import http.server, os, socket, sys, time

root, requests = sys.argv[1:]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mode, name = self.path[1:].split("/", 1)
        asked = self.headers.get("Range")
        with open(requests, "a") as log:
            print(self.path, asked or "", file=log)
        if mode in ("moved", "away"):
            self.send_response(302)
            self.send_header("Location", f"/good/{name}" if mode == "moved" else f"file://{root}")
            self.end_headers()
            return
        path = os.path.join(root, name)
        if not os.path.isfile(path):
            return self.send_error(404)
        with open(path, "rb") as file:
            body = file.read()
        if mode == "corrupt":
            body = body[:20] + bytes([body[20] ^ 1]) + body[21:]
        start = int(asked[6:-1]) if asked and mode not in ("whole", "half") else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        body = body[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if mode in ("broken", "half", "stall"):
            body = body[: max(4000, len(body) // 2)]
        self.wfile.write(body)
        self.wfile.flush()
        if mode == "stall":
            time.sleep(20)

    def log_message(self, *arguments):
        pass

unused = socket.socket()  # bound, but nobody listens: the server that is down
unused.bind(("127.0.0.1", 0))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, unused.getsockname()[1], flush=True)
server.serve_forever()
END

archive() { # archive DIR NAME PREFIX FILES...: served/DIR/NAME with the files as PREFIX/...
    local to=$served/$1/$2 prefix=$3
    shift 3
    mkdir -p "$(dirname "$to")"
    tar -cPzf "$to" --transform "s,^[^/.],$prefix/&,S" "$@"
}

make_served() {
    local prefix=cifar-10-batches-bin name=cifar-10-binary.tar.gz
    local files=(batches.meta.txt data_batch_{1..5}.bin test_batch.bin)
    mkdir -p "$served" "$work/cifar100" "$work/hostile" "$tree/scripts" "$tree/data"
    cp "$golden"/grey/*.gz "$served"
    cp "$golden"/colour/* "$work/hostile"
    ln -s "$prepare" "$tree/data/prepare"
    archive . $name $prefix -C "$golden/colour" "${files[@]}"
    python3 - "$work/cifar100" <<'END'
import sys
records = b"".join(bytes([i // 5, i]) + bytes([2 * i]) * 3072 for i in range(100))
for name in "train.bin", "test.bin":
    open(f"{sys.argv[1]}/{name}", "wb").write(records)
open(f"{sys.argv[1]}/fine_label_names.txt", "w").write("".join(f"class{i}\n" for i in range(100)))
END
    archive . cifar-100-binary.tar.gz cifar-100-binary -C "$work/cifar100" \
        fine_label_names.txt train.bin test.bin

    # Members with paths that leave the directory, and links: harmless while nobody asks for them.
    touch "$work/escaped" "$work/absolute"
    (
        cd "$work/hostile" || exit
        ln -s /etc/passwd passwd
        archive extra $name $prefix "${files[@]}" passwd ../escaped "$work/absolute"
        archive twice $name $prefix "${files[@]}" test_batch.bin
        ln -f data_batch_1.bin data_batch_2.bin
        archive hardlink $name $prefix "${files[@]}"
        ln -sf /etc/passwd data_batch_3.bin
        rm data_batch_2.bin && cp data_batch_1.bin data_batch_2.bin
        archive symlink $name $prefix "${files[@]}"
        archive short $name $prefix "${files[@]:1}"
    )
    mkdir "$served/cut"
    head -c 3000 "$served/$name" >"$served/cut/$name"
    rm "$work/escaped" "$work/absolute"
}

expect() { # expect DIR: the script's copy takes the sums of the files in served/DIR, and their size
    local file edits=(-e 's/28x28x1 10/19x18x1 10/')
    for file in "$served/$1"/*.gz; do
        edits+=(-e "/${file##*/}\$/{n;s/[0-9a-f]{64}/$(sha256sum <"$file" | head -c 64)/}")
    done
    sed -E "${edits[@]}" scripts/download.sh >"$tree/scripts/download.sh"
    chmod +x "$tree/scripts/download.sh"
}

download() { # download MODE[/DIR] SET [OPTIONS...]
    local from=$1
    shift
    "$tree/scripts/download.sh" "$@" --mirror "$site/$from/"
}
fresh() { rm -rf "$tree"/data/*mnist* "$tree"/data/*cifar* && : >"$requests"; }
left() { (cd "$tree/data" && find . -mindepth 1 ! -name prepare | sort | tr '\n' ' '); }
whole() { # the data set is intact and nothing else is there
    "$prepare" check "$tree/data/$1" && [ "$(find "$tree"/data/* -maxdepth 0 | wc -l)" -eq 2 ]
}
same() { [ "$1" = "$2" ] || { echo "found $1, expected $2" && false; }; }
asked() { grep -cE "$1" "$requests"; }

make_served
mkfifo "$work/ports"
python3 "$work/server.py" "$served" "$requests" >"$work/ports" 2>/dev/null &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
read -r port down <"$work/ports"
site=http://127.0.0.1:$port
expect .

fails "no data set" 2 "name a data set" "$tree/scripts/download.sh"
fails "unknown data set" 2 'unknown data set "svhn"' download good svhn
fails "two data sets" 2 "one data set at a time" download good mnist cifar10
fails "unknown option" 2 "unknown option --fast" download good mnist --fast
fails "no value" 2 "--out needs a value" "$tree/scripts/download.sh" mnist --out
fails "no address" 2 "expected an address" "$tree/scripts/download.sh" mnist --mirror /tmp
ok "help" "$tree/scripts/download.sh" --help
ok "help on stdout" same "$(head -c 6 "$work/out")" usage:

fresh
ok "mnist" download good mnist
ok "mnist: quiet without a terminal" same "$(cat "$work/err")" ""
ok "mnist: only the data set is left" whole mnist
: >"$requests"
ok "a second run" download good mnist
ok "a second run: says so" same "$(cat "$work/out")" "data/mnist: the data set is there"
ok "a second run asks for nothing" same "$(cat "$requests")" ""
fails "another data set is there" 2 "holds images of 19x18x1 in 10 classes, not cifar10" \
    download good cifar10 --out "$tree/data/mnist"
truncate -s -1 "$tree/data/mnist/x-test-00000-of-00001.nns"
fails "a damaged data set" 3 "x-test-00000-of-00001.nns" download good mnist

fresh
ok "fashion-mnist, moved" download moved fashion-mnist
ok "fashion-mnist: only the data set is left" whole fashion-mnist
fresh
ok "cifar10" download good cifar10
ok "cifar10: only the data set is left" whole cifar10
fresh
ok "cifar100" download good cifar100
ok "cifar100: only the data set is left" whole cifar100
ok "cifar100: a second run" download good cifar100
fails "cifar100 is not cifar10" 2 "holds images of 32x32x3 in 100 classes, not cifar10" \
    download good cifar10 --out "$tree/data/cifar100"

fresh
ok "--keep, --out" download good mnist --keep --out "$tree/data/my mnist"
ok "--keep keeps the files" same "$(find "$tree/data/my mnist.download" -type f | wc -l)" 4
rm -rf "$tree/data/my mnist"
: >"$requests"
ok "kept files serve again" download good mnist --out "$tree/data/my mnist"
ok "kept files: no request" same "$(cat "$requests")" ""
ok "without --keep they go" same "$(find "$tree/data" -name '*.download')" ""

fresh
ok "broken connections" download broken mnist
ok "broken connections: only the data set is left" whole mnist
ok "broken connections: resumed" test "$(asked "train-images.* bytes=")" -ge 2

fresh
archive=cifar10.download/cifar-10-binary.tar.gz
timeout -s INT 1 "$tree/scripts/download.sh" cifar10 --mirror "$site/stall" >/dev/null 2>&1
ok "interrupted: a part is left" same "$(left)" "./cifar10.download ./$archive.part "
half=$(stat -c %s "$tree/data/$archive.part")
fails "interrupted, then down" 4 "run this again to go on" \
    "$tree/scripts/download.sh" cifar10 --mirror "http://127.0.0.1:$down"
: >"$requests"
ok "resumed" download good cifar10
ok "resumed where it stopped" same "$(cat "$requests")" "/good/cifar-10-binary.tar.gz bytes=$half-"
ok "resumed: whole" whole cifar10

fresh
mkdir "$tree/data/cifar10.download"
head -c 5000 /dev/zero >"$tree/data/$archive.part"
ok "a wrong part" download good cifar10
ok "a wrong part: from the start" same "$(asked ' $') $(asked ' bytes=5000-')" "1 1"
fresh
mkdir "$tree/data/cifar10.download"
head -c 5000 "$served/cifar-10-binary.tar.gz" >"$tree/data/$archive.part"
ok "a server without ranges" download whole cifar10
fresh
mkdir "$tree/data/cifar10.download"
cp "$served/cifar-10-binary.tar.gz" "$tree/data/$archive.part"
ok "a part that is the whole file" download good cifar10

fresh
expected=$(sha256sum <"$served/cifar-10-binary.tar.gz" | head -c 64)
got=$(curl -s "$site/corrupt/cifar-10-binary.tar.gz" | sha256sum | head -c 64)
fails "corrupted" 3 "SHA-256 is $got, expected $expected" download corrupt cifar10
ok "corrupted: nothing is left" same "$(left)" ""
fails "missing" 4 "404" download good/none cifar10
ok "missing: nothing is left" same "$(left)" ""
fails "always cut short" 4 "error: $site/half" download half cifar10
fresh
fails "redirected to a file" 4 "error: $site/away" download away cifar10
fails "down" 4 "error: http://127.0.0.1:$down" \
    "$tree/scripts/download.sh" mnist --mirror "http://127.0.0.1:$down"
ok "down: nothing is left" same "$(left)" ""
ok "down, wrong data, good" download good cifar10 \
    --mirror "http://127.0.0.1:$down" --mirror "$site/corrupt"
fresh
fails "all mirrors bad" 3 "; $site/good/none/" download good/none mnist --mirror "$site/corrupt"

fresh
mv "$served/t10k-labels-idx1-ubyte.gz" "$work"
fails "the last of four is missing" 4 "t10k-labels" download good mnist
mv "$work/t10k-labels-idx1-ubyte.gz" "$served"
: >"$requests"
ok "the others are not asked for again" download good mnist
ok "one request" same "$(wc -l <"$requests")" 1

for fault in twice hardlink symlink short cut; do
    fresh
    expect $fault
    fails "archive: $fault" 3 "cifar-10-binary.tar.gz: " download good/$fault cifar10
    ok "archive: $fault, nothing unpacked" same "$(left)" "./cifar10.download ./$archive "
done
fresh
expect extra
ok "archive: extra members" download good/extra cifar10 --keep
ok "archive: they stay inside" same "$(find "$work" -name escaped -o -name absolute)" ""
expect .

fresh
mkdir "$tree/data/mnist"
touch "$tree/data/mnist/mine"
fails "a directory with other files" 2 "holds other files" download good mnist
touch "$tree/data/cifar"
fails "a file on the way" 4 "Not a directory" download good mnist --out "$tree/data/cifar/mnist"
fresh
mkdir "$tree/data/cifar10.download"
mkdir "$tree/data/cifar10.download/unpacked"
touch "$tree/data/cifar10.download/unpacked/mine"
fails "other files where it unpacks" 4 "files of yours" download good cifar10
ok "they stay" test -e "$tree/data/cifar10.download/unpacked/mine"
rm -r "$tree/data/cifar10.download/unpacked"
exec 8<"$tree/data/cifar10.download"
flock 8
fails "two at once" 4 "another download is running" download good cifar10
exec 8<&-
full() { (trap '' XFSZ && ulimit -f 4 && download good cifar10); }
fails "disk full" 4 "is the disk full?" full
mv "$tree/data/prepare" "$work/prepare"
fails "no data/prepare" 2 "make data/prepare" download good mnist
mv "$work/prepare" "$tree/data/prepare"
ok "nobody asked for anything" same "$(asked mnist)" 0

fresh
if script -qec true /dev/null >/dev/null 2>&1; then
    ok "on a terminal" script -qec "$tree/scripts/download.sh cifar10 --mirror $site/good" /dev/null
    ok "on a terminal: progress" same "$(grep -c "Time *Current" "$work/out")" 1
else
    skip "on a terminal" "no program 'script'"
fi
finish
