#!/usr/bin/env bash
# Every operation of the CUDA backend executed on the CPU: all shapes in every order and type, a
# race detector over all operations, and both trainers in every order and type.
. "$(dirname "$0")/cuda_on_cpu/lib.sh"
for dtype in fp32 tf32 bf16; do
    for order in forward reverse random; do
        agrees asan $order $dtype full
        for net in mlp cnn simple; do same_losses asan $order $dtype $net; done
    done
    agrees tsan random $dtype quick
done
same_losses tsan random bf16 mlp
finish
