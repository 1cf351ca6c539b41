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
driver=$(make -pn 2>/dev/null | sed -n 's/^CUDA_DRIVER := *//p' | head -n 1)
if [ -n "$driver" ]; then
    skip "make without a driver" "there is $driver"
else
    wanted=$work/none/kernels/cuda/wanted
    ok "make without a driver says what to do" bash -c "make BUILD='$work/none' '$wanted' |
        grep -x 'CUDA none: no NVIDIA driver; make CUDA=1 builds it for another machine'"
fi
finish
