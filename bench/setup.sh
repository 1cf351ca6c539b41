#!/usr/bin/env bash
# Installs what nn.c is compared with and this system lacks, then says what is there:
#   PyTorch      the newest wheel of PyPI, in build/bench-venv: several GB, as it brings CUDA along
#   --cpu        PyTorch's wheel without CUDA, about 0.3 GB, from download.pytorch.org instead
#   OpenBLAS     the variant with OpenMP, which the matrix products are compared with
#   oneDNN       whose convolutions are compared
#   allocators   tcmalloc, jemalloc, and Intel's OpenMP: some make PyTorch faster
# PYTHON=... names a Python that has torch already; nothing of Python is then installed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
index=()
case "${1-}" in
'') ;;
--cpu) index=(--index-url https://download.pytorch.org/whl/cpu) ;;
*)
    echo "usage: bench/setup.sh [--cpu]" >&2
    exit 2
    ;;
esac

packages=(libopenblas-openmp-dev libdnnl-dev libtcmalloc-minimal4 libjemalloc2 python3-venv g++)
have() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'; }

# A package that this release of the system lacks costs a row of the comparison, not all of it.
install_packages() {
    local root=() p
    if ! command -v apt-get >/dev/null; then
        echo "setup.sh knows only Debian and Ubuntu; there the packages are: ${packages[*]}" >&2
        return
    fi
    [ "$(id -u)" = 0 ] || root=(sudo)
    for p in "${packages[@]}"; do
        have "$p" && continue
        echo "installing $p"
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
            --no-upgrade "$p" >/dev/null || echo "setup.sh: no $p here" >&2
    done
}

install_torch() {
    local venv=build/bench-venv
    if [ ! -e "$venv/.complete" ]; then
        echo "installing PyTorch into $venv; its download may be several GB"
        python3 -m venv "$venv" &&
            "$venv/bin/pip" install -q --disable-pip-version-check "${index[@]}" torch &&
            touch "$venv/.complete"
        "$venv/bin/pip" install -q --disable-pip-version-check intel-openmp ||
            echo "setup.sh: no intel-openmp from PyPI" >&2
    fi
    [ -e "$venv/.complete" ]
}

install_packages
[ -n "${PYTHON:-}" ] || install_torch || echo "setup.sh: PyTorch could not be installed" >&2

python=${PYTHON:-build/bench-venv/bin/python}
for p in "${packages[@]}"; do
    printf '%-24s %s\n' "$p" "$(have "$p" && dpkg-query -W -f '${Version}' "$p" || echo missing)"
done
printf '%-24s %s\n' "PyTorch" "$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null || echo missing)"
