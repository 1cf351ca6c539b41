#!/usr/bin/env bash
# The Dockerfile's CPU variant without Docker: its stages are folders made by debootstrap, in which
# what RUN says is run; then its trainers train as its user, who may write nowhere else.
. "$(dirname "$0")/lib.sh"
lacks() {
    [ "$(id -u)" = 0 ] || { echo "not root" && return; }
    command -v debootstrap >/dev/null || { echo "no debootstrap; ./scripts/setup.sh --dev installs it" && return; }
    unshare --mount --pid --fork true 2>/dev/null || echo "no right to unshare namespaces"
}
why=$(lacks)
if [ -n "$why" ]; then
    skip "the Dockerfile's stages" "$why"
    finish
fi

# Packages that were downloaded once stay in build/, for all stages and later runs.
packages=$PWD/build/packages
mkdir -p "$packages/partial"
if ! debootstrap --variant=minbase --cache-dir="$packages" bookworm "$work/base" >"$work/out" 2>&1; then
    skip "the Dockerfile's stages" "debootstrap: $(grep -E '^[EW]:' "$work/out" | tail -n 1)"
    finish
fi
rm -f "$work"/base/var/cache/apt/archives/*.deb

# within ROOT COMMAND...: as in a container: own processes, /proc, and the cache of packages.
within() {
    local root=$1
    shift
    unshare --mount --pid --fork sh -c '
        mount -t proc proc "$0/proc" && mount --bind "$1" "$0/var/cache/apt/archives" && shift && exec chroot "$0" "$@"' \
        "$root" "$packages" "$@"
}

# Carries out the instructions for VARIANT=cpu. Leaves the last stage in $root, with $directory,
# $user, $command and $environment.
stage() { # stage IMAGE [as NAME]
    local image=${1//'${VARIANT}'/cpu}
    root=$work/stage-${3:-final} directory=/ user=0 environment=(PATH=/usr/sbin:/usr/bin:/sbin:/bin)
    [ -d "$work/stage-$image" ] && image=$work/stage-$image
    case $image in
    debian:bookworm*) image=$work/base ;;
    /*) ;;
    *) return ;; # not of this variant
    esac
    cp -a "$image" "$root"
    cp /etc/resolv.conf "$root/etc"
}
copy() { # copy [--from=STAGE] FROM TO
    case $1 in
    --from=*) mkdir -p "$root$3" && cp -a "$work/stage-${1#*=}$2/." "$root$3" ;;
    .) mkdir -p "$root$2" && git ls-files -z | grep -zv '^\.ci/' | xargs -0 cp --parents -t "$root$2" ;;
    esac
}
run() { within "$root" env -i "${environment[@]}" sh -c "cd $directory && $1"; }
build() {
    local word rest
    while read -r word rest; do
        # shellcheck disable=SC2086 # words
        case $word in
        FROM) stage $rest ;;
        COPY) copy $rest ;;
        RUN) run "$rest" || return ;;
        ENV) environment+=("$rest") ;;
        WORKDIR) directory=$rest && mkdir -p "$root$rest" ;;
        USER) user=$rest ;;
        CMD) command=${rest//[\[\]\",]/} ;;
        ARG | '#'* | '') ;;
        *) echo "unknown: $word" && return 1 ;;
        esac
    done <Dockerfile
}
train() { # train OPTIONS...: the image's command and user
    within "$root" chroot --userspec="$user:$user" / env -i "${environment[@]}" HOME=/ \
        sh -c "cd $directory && $command $*"
}
command_mlp() { command=train_mlp && train --steps 5 --quiet --out mlp; }
no_compiler() { [ ! -e "$root/usr/bin/gcc" ] && [ ! -e "$root/nn.c" ]; }
small() { [ "$(du -sm "$root" | cut -f1)" -le $(($(du -sm "$work/base" | cut -f1) + 30)) ]; }
doctor() { train >"$work/doctor"; [ $? -eq 1 ] && grep -q '^CPU only, because ' "$work/doctor"; }
owner() { [ "$(stat -c %u "$root/work/run/model.safetensors")" = 10001 ]; }

ok "the stages build" build
cp "$work/out" "$BUILD/tests/log/containers-build.log" 2>/dev/null
ok "the final stage has no compiler and no sources" no_compiler
ok "it is at most 30 MB larger than its base" small
ok "its command trains" train --steps 5 --quiet --out run
ok "and has its page drawn" test -s "$root/work/run/report.html"
ok "so does train_mlp" command_mlp
ok "as a user without rights" owner
fails "who may not write elsewhere" 4 "/opt/nn.c" train --steps 1 --out /opt/nn.c/run
command=/opt/nn.c/scripts/doctor.sh
ok "its doctor says what is missing" doctor
finish
