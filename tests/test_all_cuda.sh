#!/usr/bin/env bash
# Every operation of the CUDA backend executed on the CPU: all shapes in every type, each type in
# another order, a race detector over all operations, and the trainers in every order and type, but for
# the largest network, which has an order for each type. (Small shapes in every order and type are
# test_cuda.sh's.)
. "$(dirname "$0")/cuda_on_cpu/lib.sh"
"$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
"$prepare" cifar tests/golden/colour --size 16x16 --out "$work/small" >/dev/null
trains() { # trains ORDER DTYPE
    for net in mlp airbench plain; do same_losses asan "$1" "$2" $net; done
}
beside agrees asan forward fp32 full
beside agrees asan reverse tf32 full
beside agrees asan random bf16 full
for dtype in fp32 tf32 bf16; do
    for order in forward reverse random; do beside trains $order $dtype; done
    beside agrees tsan random $dtype quick
done
beside same_losses asan forward fp32 cnn
beside same_losses asan reverse tf32 cnn
beside same_losses asan random bf16 cnn
beside same_losses tsan random bf16 mlp

# ---- small tiles of linear layers ----
export NN_EMU_PROCESSORS=132
beside agrees asan forward tf32 full linear
beside agrees asan reverse bf16 full linear
beside agrees tsan reverse tf32 quick linear
beside agrees tsan random bf16 quick linear
beside same_losses asan random tf32 mlp
beside several_steps "mlp, small tiles of linear layers" "forward reverse random" train_mlp --data "$work/grey" \
    --hidden 40 --batch-size 40 --steps 9 --dtype bf16
unset NN_EMU_PROCESSORS

# ---- convolutions by wgmma: test_cuda.sh has all shapes, each pass in one order ----
export NN_WGMMA=1 NN_EMU_CAPABILITY=90
beside agrees asan forward bf16 full conv2d
beside agrees tsan reverse bf16 quick conv2d
unset NN_WGMMA NN_EMU_CAPABILITY

# ---- several steps by one launch: also where the whitening bias is frozen, after 24 steps ----
NN_GRAPH_STEPS=4 beside several_steps "mlp, at most 4" "forward reverse random" train_mlp --data "$work/grey" \
    --hidden 8 --batch-size 8 --steps 45 --dtype bf16
beside several_steps whitening random train_airbench --data "$work/small" --width 0.0625 --tta 0 --steps 30 --batch-size 8 --lr 0.01

# ---- the timing report has CUDA's rows ----
timing_report() {
    ok "a timing report" emulated asan forward train_mlp --bench --quick --quiet --device cuda --batch-size 64 \
        --hidden 16 --out "$work/bench"
    for row in launch_async graph_run_256 short_kernel_10us h2d_pinned_67108864 copy_overlap malloc_async_64mb \
        pin_limit step_no_graph; do
        ok "row $row" grep -q "\"name\": *\"$row\"" "$work/bench/bench.json"
    done
    ok "8 steps in 4 launches: of 1, 4, 2 and 1" grep -q '"launches": *0.5,' "$work/bench/bench.json"
}
beside timing_report

# ---- and between the lines of a log, checkpoints and tests of a long run ----
long=(train_mlp --data "$work/grey" --hidden 8 --batch-size 8 --steps 1500 --save-every 100 --quiet --device cuda)
beside ok "a long run, calls alone" emulated asan forward "${long[@]}" --graph off --out "$work/long-off"
beside ok "a long run" emulated asan reverse "${long[@]}" --out "$work/long-on"
besides
ok "a long run: the same bits" cmp "$work/long-off/model.safetensors" "$work/long-on/model.safetensors"
ok "a long run: the same log" cmp <(losses "$work/long-off") <(losses "$work/long-on")
finish
