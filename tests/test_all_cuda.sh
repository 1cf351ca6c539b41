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

# ---- the timing report has CUDA's rows ----
ok "a timing report" emulated asan forward train_mlp --bench --quick --quiet --device cuda --batch-size 64 \
    --hidden 16 --out "$work/bench"
for row in launch_async graph_run_256 short_kernel_10us h2d_pinned_67108864 copy_overlap malloc_async_64mb \
    pin_limit step_no_graph; do
    ok "row $row" grep -q "\"name\": *\"$row\"" "$work/bench/bench.json"
done

# ---- convolutions by wgmma ----
export NN_WGMMA=1 NN_EMU_CAPABILITY=90
for order in forward reverse random; do agrees asan $order bf16 full conv2d; done
agrees tsan reverse bf16 quick conv2d
finish
