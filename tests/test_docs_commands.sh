#!/usr/bin/env bash
# The commands that docs/wsl.md, docs/containers.md and docs/predict.md show, as they stand, but for
# two steps of training each: in a folder like a checkout, with `docker` and what is not to be waited for played
# by scripts that hold them to the Dockerfile and the Makefile.
. "$(dirname "$0")/lib.sh"
tree=$work/tree bin=$work/bin home=$work/home checkout=$PWD
mkdir -p "$tree/data" "$tree/scripts" "$bin" "$home/nn.c"
script() { printf '#!/usr/bin/env bash\n%s\n' "$2" >"$1" && chmod +x "$1"; }

# The trainer with a narrow network, and two steps instead of those of --steps.
script "$tree/train_cnn" 'options=() && while [ $# -gt 0 ]; do
    if [ "$1" = --steps ]; then shift; else options+=("$1"); fi
    shift
done
case " ${options[*]} " in *" --bench "*) exit ;; esac # minutes: tests/test_bench.sh
exec '"$train_cnn"' "${options[@]}" --steps 2 --width 0.03'
ln -s "$prepare" "$tree/data/prepare"
for name in setup doctor; do script "$tree/scripts/$name.sh" "test -x $PWD/scripts/$name.sh"; done
script "$bin/make" "exec $(command -v make) -n -C $PWD \"\$@\" >/dev/null"
script "$bin/sleep" :
script "$bin/podman" 'exec docker "$@"'
# Images are those that were built before; their programs, what scripts/container.sh puts there.
script "$bin/docker" '
fault() { echo "docker: $*" >&2 && exit 125; }
case $1 in
build)
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        -t) echo "$2" >>'"$work"'/images && shift 2 ;;
        --build-arg) grep -q "^ARG ${2%%=*}=" '"$checkout"'/Dockerfile || fault "no ARG $2" && shift 2 ;;
        --target) grep -q " AS $2\$" '"$checkout"'/Dockerfile || fault "no stage $2" && shift 2 ;;
        .) shift ;;
        *) fault "build $1" ;;
        esac
    done ;;
run)
    shift
    while :; do
        case $1 in
        --rm | -it) shift ;;
        --user | -v | -e | --gpus | --device) shift 2 ;;
        -*) fault "run $1" ;;
        *) break ;;
        esac
    done
    grep -qx "$1" '"$work"'/images || fault "no image $1"
    case $2 in
    train_cnn)
        shift 2
        ./train_cnn "$@" && exit
        [ $? = 5 ] && case " $* " in *" --device cuda "*) exit 0 ;; esac # there may be no GPU here
        exit 1 ;;
    /opt/nn.c/*) test -x '"$checkout"'"${2#/opt/nn.c}" ;;
    *) fault "no program $2" ;;
    esac ;;
*) fault "$*" ;;
esac'

# Folders that the commands want: 32x32 pictures of two classes as BMP, and a data set.
bmp='BM\x36\x0c\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x20\0\0\0\x20\0\0\0\1\0\x18\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
for class in cat dog; do
    mkdir -p "$home/photos/$class"
    for i in {1..24}; do
        { printf '%b' "$bmp" && yes "$class $i" | head -c 3072; } >"$home/photos/$class/$i.bmp"
    done
done
"$prepare" cifar tests/golden/colour --out "$tree/data/cifar10" >/dev/null

# Lines of code blocks without a language, with a pattern; lines that end in \ or | with the next.
lines() { # lines FILE PATTERN
    awk -v pattern="$2" '/^```/ {code = !fence && $0 == "```"; fence = !fence; next}
        code {line = line $0}
        code && /\\$/ {sub(/\\$/, "", line); next}
        code && /\|$/ {next}
        code {if (line ~ pattern) print line; line = ""}' "$1"
}
commands() { # commands FILE PATTERN AT-LEAST
    local line count=0
    while IFS= read -r line; do
        count=$((count + 1))
        ok "$(basename "$1"): $line" env -C "$tree" HOME="$home" PATH="$bin:$PATH" bash -euo pipefail -c "$line"
    done <<<"$(lines "$1" "$2")"
    ok "$(basename "$1"): at least $3 commands" test $count -ge "$3"
}
commands docs/wsl.md '[.]/(train_|data/prepare)' 6
commands docs/containers.md '^(docker|podman) ' 8

ln -s "$predict" "$tree/predict"
mkdir -p "$tree/photos" && cp -r "$home/photos" "$tree/photos/test"
for class in cat dog; do cp "$home/photos/$class/1.bmp" "$tree/$class.jpg"; done
"$train_cnn" --data "$tree/data/photos" --net plain --width 0.03 --steps 1 --out "$work/weights" --quiet >/dev/null
cp "$work/weights/model.safetensors" "$tree/weights.safetensors"
commands docs/predict.md '[.]/(train_|predict)' 7
finish
