#!/usr/bin/env bash
# Downloads a data set, checks it and prepares its shards; see --help.
#
# Files arrive in OUT.download as NAME.part, which a later run continues, and lose the ending when
# their SHA-256 is right. Nothing is unpacked or read before that.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'END'
usage: scripts/download.sh mnist|fashion-mnist|cifar10|cifar100 [options]

Downloads the data set, checks its SHA-256 and prepares it with data/prepare. A download that was
interrupted goes on where it stopped; a data set that is there is only checked.

  --out DIR     where the data set appears [data/NAME]
  --mirror URL  get the files from this address instead; several are tried in turn
  --keep        keep the downloaded files, in DIR.download

Exit status: 2 usage, or something is not installed; 3 wrong data; 4 network or disk.
END
}

die() {
    echo "error: $2" >&2
    exit "$1"
}

# Sets for a data set: kind (of data/prepare), shape (of images, and the number of classes),
# known_mirrors, sums (file, SHA-256, ...) and members (all that is unpacked from an archive). By its
# shape a data set that is there is known: MNIST passes for Fashion-MNIST.
describe() {
    case $1 in
    mnist)
        kind=idx shape='28x28x1 10' members=()
        known_mirrors=(https://ossci-datasets.s3.amazonaws.com/mnist
            https://storage.googleapis.com/cvdf-datasets/mnist)
        sums=(train-images-idx3-ubyte.gz
            440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609
            train-labels-idx1-ubyte.gz
            3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c
            t10k-images-idx3-ubyte.gz
            8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6
            t10k-labels-idx1-ubyte.gz
            f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6)
        ;;
    fashion-mnist)
        kind=idx shape='28x28x1 10' members=()
        known_mirrors=(http://fashion-mnist.s3-website.eu-central-1.amazonaws.com)
        sums=(train-images-idx3-ubyte.gz
            3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84
            train-labels-idx1-ubyte.gz
            a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845
            t10k-images-idx3-ubyte.gz
            346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073
            t10k-labels-idx1-ubyte.gz
            67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5)
        ;;
    cifar10)
        kind=cifar shape='32x32x3 10'
        members=(cifar-10-batches-bin/{batches.meta.txt,data_batch_{1,2,3,4,5}.bin,test_batch.bin})
        known_mirrors=(https://www.cs.toronto.edu/~kriz)
        sums=(cifar-10-binary.tar.gz
            c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd)
        ;;
    cifar100)
        kind=cifar shape='32x32x3 100'
        members=(cifar-100-binary/{fine_label_names.txt,train.bin,test.bin})
        known_mirrors=(https://www.cs.toronto.edu/~kriz)
        sums=(cifar-100-binary.tar.gz
            58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec)
        ;;
    *) die 2 "unknown data set \"$1\": expected mnist, fashion-mnist, cifar10 or cifar100" ;;
    esac
}

parse() {
    name='' out='' mirrors=() keep=''
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h)
            usage
            exit
            ;;
        --out | --mirror) [ -n "${2-}" ] || die 2 "$1 needs a value; see --help" ;;&
        --out)
            out=$(realpath -ms -- "$2")
            shift
            ;;
        --mirror)
            [[ $2 == http://?* || $2 == https://?* ]] ||
                die 2 "--mirror $2: expected an address with http:// or https://"
            mirrors+=("${2%/}")
            shift
            ;;
        --keep) keep=1 ;;
        -*) die 2 "unknown option $1; see --help" ;;
        *)
            [ -z "$name" ] || die 2 "one data set at a time: $name or $1; see --help"
            name=$1
            ;;
        esac
        shift
    done
    [ -n "$name" ] || die 2 "name a data set: mnist, fashion-mnist, cifar10 or cifar100; see --help"
    describe "$name"
    [ ${#mirrors[@]} -gt 0 ] || mirrors=("${known_mirrors[@]}")
    out=${out:-data/$name}
}

# What would fail after a long download fails here, and a data set that is there ends the run.
check_place() {
    local shards=("$out"/x-train-*.nns) found
    [ -x data/prepare ] || die 2 "data/prepare is missing: run \`make data/prepare\` in $PWD"
    if [ -e "${shards[0]}" ]; then
        data/prepare check "$out" >/dev/null || exit
        found=$(data/prepare info "${shards[0]}" |
            awk 'NR == 2 {print $4} $1 == "classes" {print $2}' | tr -d , | xargs)
        [ "$found" = "$shape" ] ||
            die 2 "$out: holds images of ${found/ / in } classes, not $name: choose another --out"
        echo "$out: the data set is there"
        exit 0
    fi
    [ ! -e "$out" ] || [ -z "$(ls -A -- "$out" 2>&1)" ] ||
        die 2 "$out: holds other files: choose a new or empty directory with --out"
    command -v curl >/dev/null ||
        die 2 "curl is not installed: sudo apt-get install curl ca-certificates"
}

size_of() { stat -c %s -- "$1" 2>/dev/null || echo 0; }

# fetch URL PART: continues PART. On failure `why` says why.
fetch() {
    local options=(-fL -C - --retry 5 --connect-timeout 20 --speed-limit 1 --speed-time 60
        --proto '=http,https' -w '%{errormsg}' -o "$2")
    local before status try
    if [ -t 2 ]; then echo "$1" >&2; else options+=(-s); fi # curl's meter shows the time left
    for ((try = 0; try < 10; try++)); do
        before=$(size_of "$2") status=0
        why=$(curl "${options[@]}" -- "$1") || status=$?
        why=${why:-curl ended with status $status}
        case $status in
        0) return 0 ;;
        18 | 28 | 52 | 55 | 56 | 92) # the connection broke: go on as long as that brings more
            [ "$(size_of "$2")" -gt "$before" ] || return 1
            ;;
        23) die 4 "$2: $why; is the disk full?" ;;
        33) # the server sends only whole files
            [ "$before" -gt 0 ] || return 1
            rm -f -- "$2"
            ;;
        60 | 77)
            why+='; if certificates are missing: sudo apt-get install ca-certificates'
            return 1
            ;;
        *) return 1 ;;
        esac
    done
    return 1
}

# check_sum PATH SUM: deletes a file that has another, and sets `why`.
check_sum() {
    local sum
    sum=$(sha256sum <"$1") || die 4 "$1: cannot be read"
    sum=${sum%% *}
    [ "$sum" != "$2" ] || return 0
    rm -f -- "$1"
    why="wrong data, deleted: SHA-256 is $sum, expected $2"
    return 3
}

# fetch_checked URL PATH SUM: 0, 4 (no file) or 3 (a wrong file)
fetch_checked() {
    fetch "$1" "$2.part" || return 4
    check_sum "$2.part" "$3" || return 3
    mv -- "$2.part" "$2" || die 4 "$2: cannot be written"
}

# obtain FILE SUM: puts the file into the download directory, from the first mirror that has it.
obtain() {
    local path=$download/$1 mirror problems='' result=4 status resumed
    if [ -e "$path" ] && check_sum "$path" "$2"; then return; fi
    for mirror in "${mirrors[@]}"; do
        resumed=$(size_of "$path.part") status=0
        fetch_checked "$mirror/$1" "$path" "$2" || status=$?
        # What an earlier run left may have been wrong: once more from the start.
        if [ $status -eq 3 ] && [ "$resumed" -gt 0 ]; then
            status=0
            fetch_checked "$mirror/$1" "$path" "$2" || status=$?
        fi
        [ $status -ne 0 ] || return 0
        [ $status -ne 3 ] || result=3
        problems+="${problems:+; }$mirror/$1: $why"
    done
    [ ! -s "$path.part" ] || problems+="; run this again to go on where it stopped"
    die $result "$problems"
}

# What unpack makes, and nothing else that may lie there.
remove_unpacked() {
    local member directories=()
    for member in "${members[@]}"; do
        rm -f -- "$download/unpacked/$member"
        directories+=("$download/unpacked/$(dirname -- "$member")")
    done
    rmdir -- "${directories[@]}" "$download/unpacked" 2>/dev/null || true
}

# unpack ARCHIVE: only the members, each once and a regular file; others stay in the archive.
unpack() {
    local list member found
    list=$(tar --numeric-owner --quoting-style=escape -tvzf "$1" 2>/dev/null) ||
        die 3 "$1: not a whole .tar.gz"
    for member in "${members[@]}"; do
        found=$(awk -v name="$member" '$6 == name {print substr($1, 1, 1) NF}' <<<"$list")
        [ "$found" = -6 ] || die 3 "$1: expected $member in it once, as a regular file"
    done
    remove_unpacked
    mkdir -- "$download/unpacked" 2>/dev/null ||
        die 4 "$download/unpacked: cannot be made; if it holds files of yours, move them away"
    tar -xzf "$1" -C "$download/unpacked" --no-recursion --no-same-owner --no-same-permissions \
        -- "${members[@]}" 2>/dev/null || die 4 "$1: cannot be unpacked; is the disk full?"
}

# Removes what a later run cannot use, and `unneeded`: the downloaded files once they are prepared.
clean() {
    remove_unpacked
    rm -f -- "${unneeded[@]}"
    rmdir -- "$download" 2>/dev/null || true
}

download_and_prepare() {
    local files=() i source=$download
    for ((i = 0; i < ${#sums[@]}; i += 2)); do
        obtain "${sums[i]}" "${sums[i + 1]}"
        files+=("$download/${sums[i]}")
    done
    if [ ${#members[@]} -gt 0 ]; then
        unpack "${files[0]}"
        source=$download/unpacked
    fi
    data/prepare "$kind" "$source" --out "$out"
    if [ -n "$keep" ]; then
        echo "the downloaded files are in $download"
    else
        unneeded=("${files[@]}")
    fi
}

parse "$@"
cd "$(dirname "$0")/.."
check_place
download=$out.download unneeded=()
problem=$(mkdir -p -- "$download" 2>&1) || die 4 "${problem#mkdir: }"
{ exec 9<"$download"; } 2>/dev/null || die 4 "$download: cannot be opened"
flock -n 9 || die 4 "$download: another download is running"
trap clean EXIT
download_and_prepare
