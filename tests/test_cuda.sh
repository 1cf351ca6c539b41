#!/usr/bin/env bash
# The CUDA backend executed on the CPU (docs/cuda.md): planted faults are reported, what is right is
# not, the operations agree with the fp64 reference, the trainers with the CPU backend.
. "$(dirname "$0")/cuda_on_cpu/lib.sh"
grey=$work/grey
"$prepare" idx tests/golden/grey --out "$grey" >/dev/null

# ---- the emulation itself ----
for how in asan tsan; do
    for order in forward reverse random; do
        beside ok "sound: $how, $order" emulated $how $order sound
    done
done
# A report of AddressSanitizer or UBSan in any order; a wrong result where threads or streams run in
# another order than was hoped for; a race in any order.
for fault in global_overrun shared_overrun dynamic_shared_overrun row_overrun uninitialized_shared misaligned \
    missing_proxy_fence missing_mbarrier_wait wrong_swizzle wrong_offset divergent_barrier exit_before_barrier divergent_shuffle empty_grid too_much_shared host_pointer \
    freed_memory host_reads_device default_stream; do
    beside reported $fault asan forward
done
for fault in missing_wait missing_wgmma_wait buffer_overwritten missing_event; do beside reported $fault asan reverse; done
for fault in missing_barrier missing_second_barrier missing_wait blocks_race; do beside reported $fault tsan forward; done

# ---- the operations ----
beside agrees asan forward fp32 quick
beside agrees asan reverse fp32 quick
beside agrees asan random fp32 quick
beside agrees asan forward tf32 quick
beside agrees asan reverse tf32 quick
beside agrees asan random tf32 quick
beside agrees asan forward bf16 quick
beside agrees asan reverse bf16 quick
beside agrees asan random bf16 quick
for operation in conv2d_forward conv2d_norm norm_stats softmax; do beside agrees tsan random bf16 quick $operation; done

# ---- convolutions by wgmma, which sm_90 has and a person asks for ----
export NN_WGMMA=1 NN_EMU_CAPABILITY=90
beside agrees asan random bf16 full conv2d_forward
beside agrees asan reverse bf16 full conv2d_backward_data
beside agrees asan random bf16 full conv2d_pool_backward_data
beside agrees asan forward bf16 quick conv2d_pool_forward
beside agrees asan reverse bf16 quick conv2d_pool_norm
beside agrees asan random bf16 full conv2d_backward_weight
beside agrees asan reverse bf16 full conv2d_pool_backward_weight
says_so() {
    agrees tsan random bf16 quick conv2d_forward # the check at start runs all of them
    ok "the device says so" test "$(grep -c ', wgmma$' "$work/out")" -eq 1
}
beside says_so
unset NN_WGMMA NN_EMU_CAPABILITY

# ---- the trainers ----
beside same_losses asan random fp32 mlp
beside same_losses asan reverse fp32 cnn
beside same_losses asan random bf16 cnn
beside same_losses asan forward fp32 airbench

# ---- Muon beside the backward pass: the same bits in any order, captured or not ----
branch() { # branch NAME OPTION...
    local name=$1
    shift
    local options=(--data "$grey" --hidden "24,16" --optimizer muon --steps 5 --batch-size 16 --quiet
        --device cuda --dtype bf16 "$@")
    ok "muon, $name: in the order of the calls" emulated asan forward train_mlp "${options[@]}" --graph off \
        --out "$work/muon-$name"
    for order in forward reverse random; do
        ok "muon, $name: $order" emulated asan $order train_mlp "${options[@]}" --out "$work/muon-$name-$order"
        ok "muon, $name: $order: the same bits" \
            cmp "$work/muon-$name/model.safetensors" "$work/muon-$name-$order/model.safetensors"
    done
}
beside branch whole
beside branch clipped --clip-norm 0.1
beside ok "muon without a hidden layer: nothing beside it" emulated asan forward train_mlp --data "$grey" --hidden none \
    --optimizer muon --steps 4 --batch-size 16 --quiet --device cuda --out "$work/muon-none"

# ---- several steps by one launch: the bits of steps whose calls are made ----
beside several_steps mlp "forward reverse random" train_mlp --data "$grey" --hidden 8 --batch-size 8 --steps 45 --dtype bf16
beside several_steps cnn "forward reverse random" train_cnn --data "$grey" --net plain --width 0.5 --batch-size 2 --steps 12

# ---- what the environment asks for ----
plain() { NN_TENSOR_CORES=0 emulated asan forward train_mlp --device cuda --dtype bf16 --steps 1 --out "$work/plain"; }
ok "no tensor cores" plain
ok "the device says so, too" test "$(grep -c '^device .*, plain kernels, bf16' "$work/out")" -eq 1
fails "no such number of steps" 2 "NN_GRAPH_STEPS=17: expected 1 to 16" env NN_GRAPH_STEPS=17 \
    "$emulated/asan/train_mlp" --device cuda --steps 1
fails "wgmma without an sm_90" 2 "NN_WGMMA=1, which needs a GPU of compute capability 9.0" \
    env NN_WGMMA=1 "$emulated/asan/train_mlp" --device cuda --steps 1

# ---- a GPU of many multiprocessors: small tiles of linear layers, and a step of few launches ----
export NN_EMU_PROCESSORS=132
beside agrees asan reverse bf16 quick linear
launches() { # launches STEPS: of a run of so many steps
    NN_EMU_COUNT=1 emulated asan forward train_mlp --data "$grey" --hidden "24,16" --batch-size 16 --steps "$1" \
        --dtype bf16 --device cuda --graph off --quiet --out "$work/count-$1" 2>&1 | sed -n 's/^cuda_on_cpu: \([0-9]*\) launches$/\1/p'
}
ok "a step of an MLP with two hidden layers is 12 launches" test $(($(launches 3) - $(launches 2))) -eq 12
unset NN_EMU_PROCESSORS

# ---- killed inside an epoch and continued ----
continued() { # continued DTYPE OPTIONS...: as an uninterrupted run; epochs have 4 steps
    local run=$work/killed-$1 whole=$work/whole-$1 pid
    local command=(train_mlp --data "$grey" --hidden 16 --batch-size 16 --steps 30 --save-every 5
        --keep 99 --quiet --device cuda --dtype "$@")
    emulated asan forward "${command[@]}" --out "$whole" >/dev/null || return 1
    "${fixed_addresses[@]}" "$emulated/asan/${command[0]}" "${command[@]:1}" --out "$run" >/dev/null &
    pid=$!
    for _ in $(seq 600); do [ -d "$run/checkpoints/step_00000005" ] && break; sleep 0.05; done
    { kill -9 $pid && wait $pid; } 2>/dev/null
    rm -rf "$run"/checkpoints/step_0000000[6-9] "$run"/checkpoints/step_000000[123]* "$run/model.safetensors"
    emulated asan forward train_mlp --resume "$run" --quiet && cmp "$run/model.safetensors" "$whole/model.safetensors" &&
        same_text "$(losses "$whole")" "$(losses "$run")"
}
beside ok "killed in an epoch and continued: fp32" continued fp32 --optimizer muon --ema on
beside ok "killed in an epoch and continued: bf16" continued bf16 --augment translate=2
fails "GPU memory short at start" 5 "MB of memory free, but this network and batch need" \
    emulated asan forward train_mlp --data "$grey" --hidden 65536,65536,65536 --steps 1 --device cuda --out "$work/short"

# ---- graphs that were captured in a run serve the next one: it must repeat the first exactly ----
beside ok "a speedrun on CUDA" emulated asan random train_mlp --data "$grey" --hidden 16 --batch-size 16 \
    --steps 4 --device cuda --speedrun --seeds 2 --quiet --out "$work/speedrun"

# ---- a profile: times by events, and a range for each call, named after its layer ----
profile() {
    NVTX_INJECTION64_PATH=$emulated/nvtx.so emulated asan random train_mlp --data "$grey" --hidden 16 \
        --batch-size 16 --steps 3 --device cuda --profile --quiet --out "$work/profiled"
}
ok "a profile on CUDA" profile
ok "its layers are NVTX ranges" test "$(grep -c '^range layers\.0 linear_backward_weight$' "$work/err")" -eq 3
ok "its times are those of the device" grep -q '"layer":"layers.0".*"fastest_ms":[0-9]*[1-9]' "$work/profiled/profile.json"
besides
finish
