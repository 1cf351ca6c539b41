#!/usr/bin/env bash
# nvcc compiles the CUDA backend without a warning, also on a machine without a driver: for Hopper,
# which has the most code of its own.
. "$(dirname "$0")/lib.sh"
if ! command -v nvcc >/dev/null; then
    skip "the CUDA backend" "no nvcc"
    finish
fi
compiles() { make BUILD="$work/build" CUDA_ARCHS=90 "$work/build/libnn_cuda.so" >"$work/log" 2>&1; }
ok "the CUDA backend compiles" compiles
ok "without a warning" bash -c "! grep -i warning '$work/log'"
ok "with what the programs open" bash -c "nm -D '$work/build/libnn_cuda.so' | grep -q ' T cuda_open$'"
finish
