#!/usr/bin/env bash
# Installs the packages that nn.c needs and this system lacks; upgrades none. Nothing to install:
# nothing printed, but for what --dev says where there is no CUDA toolkit.
#   scripts/setup.sh         to build and for `make test`
#   scripts/setup.sh --dev   also for `make test-all`
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(gcc libc6-dev make patch zlib1g-dev libstb-dev libcmocka-dev)
case "${1-}" in
'') ;;
--dev) packages+=(g++ libopenmpi-dev openmpi-bin iproute2 libopenblas-dev clang-format shellcheck xz-utils python3
    python3-venv python3-torch valgrind tmux curl debootstrap chromium clang clang-tidy cppcheck)
    # libFuzzer has the compiler's version in its package's name; Ubuntu 22.04 has it in clang itself.
    runtime=$(apt-cache depends clang 2>/dev/null | sed -nE 's/.*Depends: clang-([0-9]+)$/libclang-rt-\1-dev/p')
    if [ -n "$runtime" ] && apt-cache show "$runtime" >/dev/null 2>&1; then packages+=("$runtime"); fi
    ;;
*)
    echo "usage: scripts/setup.sh [--dev]" >&2
    exit 2
    ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "setup.sh knows only Debian and Ubuntu. Install what these packages hold there:" >&2
    echo "  ${packages[*]}" >&2
    exit 1
fi

# Prints the packages that are not installed.
missing_packages() {
    local installed package
    installed=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ' "${packages[@]}" 2>/dev/null || true)"
    for package in "${packages[@]}"; do
        [[ $installed == *" ii $package "* ]] || echo "$package"
    done
}

# apt-get with what may be missing to run it: the right to, and an answer to every question.
apt() {
    local root=()
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "setup.sh needs root: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        root=(sudo)
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
}

install_missing() {
    echo "installing ${missing[*]}"
    local install=(install -y --no-install-recommends --no-upgrade "${missing[@]}")
    # The lists of packages may be missing or too old to find the files.
    apt "${install[@]}" || { apt update && apt "${install[@]}"; }
}

# Debian's PyTorch, and from PyPI what Debian lacks. Without it the tests that use it are skipped.
make_venv() {
    [ ! -e build/venv/.complete ] || return 0
    echo "making build/venv"
    /usr/bin/python3 -m venv --system-site-packages build/venv
    if build/venv/bin/pip install -q --disable-pip-version-check numpy safetensors; then
        touch build/venv/.complete
    else
        echo "setup.sh: no safetensors from PyPI: tests of Python interchange will be skipped" >&2
    fi
}

read -ra missing <<<"$(missing_packages | tr '\n' ' ')" # <() would need /proc
[ ${#missing[@]} -eq 0 ] || install_missing
if [ "${1-}" = --dev ]; then
    make_venv
    if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
        echo "setup.sh: no CUDA toolkit, which is several GB and not installed here: tests of the CUDA backend" \
            "will be skipped (scripts/doctor.sh says how to install it)" >&2
    fi
fi
