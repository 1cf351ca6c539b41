#!/usr/bin/env bash
# What the RUN lines of the Dockerfile do, as root in an image.
#   scripts/container.sh build DIR    installs what building needs, builds for any x86-64 processor
#                                     and GPU, and puts what runs, and this script, into DIR
#   scripts/container.sh install DIR  in another image, DIR brought along: installs what running
#                                     needs, and makes the user nn, who owns /work
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

build() {
    local dir=$1 cuda=''
    cd "$(dirname "$0")/.."
    scripts/setup.sh
    if command -v nvcc >/dev/null; then
        cuda=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
        apt-get install -y -q --no-install-recommends g++
    fi
    make -j"$(nproc)" PORTABLE=1 CUDA_ARCHS=all
    install -d "$dir/scripts" "$dir/pages"
    install build/portable/{train_mlp,train_cnn,train_airbench,predict,data/prepare} LICENSE "$dir"
    install build/portable/pages/runs "$dir/pages"
    install scripts/container.sh scripts/doctor.sh "$dir/scripts"
    [ -z "$cuda" ] || install build/portable/libnn_cuda.so "$cuda"/lib64/libcublasLt.so.?? "$dir"
}

install_needed() {
    local dir=$1
    apt-get update -q
    apt-get install -y -q --no-install-recommends libgomp1 libstdc++6 zlib1g
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
    echo "$dir" >/etc/ld.so.conf.d/nn.conf # for libcublasLt
    ldconfig
    useradd --create-home --uid 10001 nn
    install -d -o nn -g nn /work
}

case ${1-}:${2-} in
build:/*) build "$2" ;;
install:/*) install_needed "$2" ;;
*)
    echo "usage: scripts/container.sh build|install /DIR" >&2
    exit 2
    ;;
esac
