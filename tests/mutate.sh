#!/usr/bin/env bash
# Plants faults in the CUDA sources and prints which check of the emulated backend notices each:
#   make emulated-asan emulated-tsan && tests/mutate.sh [PART OF A FILE'S NAME]
# Every barrier, fence and wait for something asynchronous is deleted once, and of those listed
# below comparisons become <= and layouts or orders wrong. A mutant is one compiled file of the
# library; it is run on the operations that use it, or, of steps, in a training run, under
# AddressSanitizer in two orders, then under ThreadSanitizer.
set -u
cd "$(dirname "$0")/.." || exit 1
emulated=$PWD/${BUILD:-build/native}/emulated only=${1-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
read -r compiler <"$emulated/flags"
caught=0 missed=0
export TSAN_OPTIONS=halt_on_error=1 ASAN_OPTIONS=detect_stack_use_after_return=0 OMP_NUM_THREADS=1
ulimit -c 0

# Where the faults of a file show: the file to compile, operations that use it, a type that it
# serves.
users='conv2d.cu        conv2d.cu        conv2d_forward         fp32
       conv2d.cuh       conv2d.cu        conv2d_forward,conv2d_norm_backward_data fp32
       conv2d_weight.cu conv2d_weight.cu conv2d_backward_weight fp32
       conv2d_wgmma.cu  conv2d_wgmma.cu  conv2d_forward         bf16
       gemm_wgmma.cuh   conv2d_weight_wgmma.cu conv2d_backward_weight bf16
       conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_backward_weight bf16
       gemm_tensor.cuh  conv2d_tensor.cu conv2d_forward         bf16
       gemm_slices.cuh  linear_small.cu  linear_forward         bf16
       linear_small.cu  linear_small.cu  linear_backward_weight bf16
       gather.cu        gather.cu        gather                 bf16
       norm.cu          norm.cu          norm                   bf16
       map.cuh          norm.cu          norm                   bf16
       reduce.cu        reduce.cu        norm                   bf16
       elements.cuh     loss.cu          softmax_cross_entropy  bf16
       graphs.cu        graphs.cu        steps                  bf16'

waits='__syncthreads|__syncwarp|C::sync|nn_barrier|nn_cp_async_wait|nn_mbarrier_wait|nn_fence_async_proxy|nn_wgmma_fence|nn_wgmma_wait|cuda_wait_event'

# Comparisons to become <=: the same, and a part of the line, the first in its file.
guards='reduce.cu        reduce.cu        norm                   bf16 if (i < n)
        norm.cu          norm.cu          norm                   bf16 if (p.row < p.end) map_load
        conv2d_weight.cu conv2d_weight.cu conv2d_backward_weight fp32 if (p < end
        conv2d_weight.cu conv2d_weight.cu conv2d_backward_weight fp32 if (k < work.terms
        conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_pool_backward_weight bf16 p < end / 4
        conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_backward_weight bf16 p < end && channel
        conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_backward_weight bf16 8 * h < live
        conv2d_wgmma.cu  conv2d_wgmma.cu  conv2d_pool_backward_data bf16 if (i + AHEAD < OWN_ROWS)
        conv2d_wgmma.cu  conv2d_wgmma.cu  conv2d_backward_data   bf16 return p.first < s.c
        conv2d_wgmma.cu  conv2d_wgmma.cu  conv2d_backward_data   bf16 channel_of_row(16 * i) < channels
        conv2d_tensor.cu conv2d_tensor.cu conv2d_forward         bf16 const bool inside = k < terms
        conv2d.cuh       conv2d.cu        conv2d_pool_forward    fp32 if (i < live
        conv2d.cuh       conv2d.cu        conv2d_pool_forward    fp32 if (j < count) to[j] = place
        conv2d.cuh       conv2d.cu        conv2d_norm_backward_data fp32 for (; row < end
        muon.cu          muon.cu          muon_update            bf16 if (j < four.count)
        gemm_slices.cuh  linear_small.cu  linear_forward         bf16 line + i < lines
        linear_small.cu  linear_small.cu  linear_backward_weight bf16 if (column + 1 < p.columns)
        muon_product.cu  muon_product.cu  muon_update            bf16 mirror < p.rows
        elements.cuh     activation.cu    activation_forward     bf16 if (i + j < n)'

# Layouts and orders that become wrong: the same, with sed's command before the part of the line.
layouts='wgmma.cuh conv2d_weight_wgmma.cu conv2d_backward_weight bf16 s/1024.>>.4/2048>>4/ eight_rows = 1024
         wgmma.cuh conv2d_weight_wgmma.cu conv2d_backward_weight bf16 s/swizzle_128.=.1/swizzle_128=2/ swizzle_128 = 1
         wgmma.cuh conv2d_weight_wgmma.cu conv2d_backward_weight bf16 s/,.next)/,1024)/ nn_wgmma_descriptor(address, next)
         conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_backward_weight bf16 s/128/64/ nn_wgmma_columns(b +
         conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_backward_weight bf16 s/128/64/ nn_wgmma_columns(a +
         conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_pool_backward_weight bf16 s/4/8/ warp_row + 4 * row + i
         conv2d_weight_wgmma.cu conv2d_weight_wgmma.cu conv2d_backward_weight bf16 s/%.8/%4/ stage + r * 128
         conv2d_wgmma.cu conv2d_wgmma.cu conv2d_pool_backward_data bf16 s/.>>.1// place_of_window >> 1
         conv2d_wgmma.cu conv2d_wgmma.cu conv2d_pool_backward_data bf16 s/\^/|/ place_of_window ^ place_of_tap
         conv2d_wgmma.cu conv2d_wgmma.cu conv2d_pool_backward_data bf16 s/NO_PLACE/0/ : NO_PLACE
         gemm_slices.cuh linear_small.cu linear_forward bf16 s/j.<.left/j<=left/ j < left
         gemm_slices.cuh linear_small.cu linear_forward bf16 s/slice.*PAIRS.+.pair/pair/ other = sums
         gemm_wgmma.cuh conv2d_wgmma.cu conv2d_pool_backward_data bf16 s/h.<<.POOLED/h*2+1/ s.h << POOLED
         gemm_wgmma.cuh conv2d_wgmma.cu conv2d_pool_backward_data bf16 s/top.>>.POOLED/top\/2/ top >> POOLED
         gemm_wgmma.cuh conv2d_weight_wgmma.cu conv2d_backward_weight bf16 s/before.<<.before/before/ >> before << before
         cuda.h cuda.cu steps bf16 s/if.*// if (cuda_streams.waiting)
         graphs.cu graphs.cu steps bf16 s/i.>.0/0/ &before, i > 0'

# Builds kernels/cuda/$1 of $work with sanitizer $2 into a library beside the check.
build() {
    local unit=$1 how=$2 source=kernels/cuda/$1 folder=$work/$2 flags
    case $how in
    asan) flags='-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined' ;;
    tsan) flags='-O1 -fsanitize=thread' ;;
    esac
    [ -e "$work/$source" ] && source=$work/$source
    mkdir -p "$folder"
    cp "$emulated/$how/check_kernels" "$emulated/$how/train_mlp" "$folder"
    # shellcheck disable=SC2086,SC2046 # lists of options and files
    ${compiler%% *} -x c++ -DNN_EMU -I"$work" ${compiler#* } -g1 -w $flags -c -o "$folder/mutant.o" "$source" &&
        ${compiler%% *} $flags -shared -o "$folder/libnn_cuda.so" "$folder/mutant.o" $(others "$unit" "$how") -ldl
}

others() { # the library's other objects
    find "$emulated/$2/kernels" "$emulated/$2/tests" "$emulated/../kernels/cuda/runtime" -name '*.o' |
        grep -vE "/(faults|sound|${1%.cu})\.o$"
}

# The test losses of two runs in which one launch is several steps.
train() { # train FOLDER OPTION...
    rm -rf "$work/run"
    NN_GRAPH_STEPS=4 timeout 300 setarch -R "$1/train_mlp" --steps 45 --batch-size 8 --hidden 8 --device cuda \
        --dtype bf16 --speedrun --seeds 1 --quiet --out "$work/run" "${@:2}" >"$work/log" 2>&1 &&
        grep -oE '"test_loss": ?[0-9.e+-]+' "$work/run/speedrun.json"
}

noticed() { # noticed HOW ORDER OPERATION DTYPE
    local operation
    if [ "$3" = steps ]; then
        right=${right-$(train "$emulated/asan" --graph off)}
        [ "$(NN_EMU_ORDER=$2 train "$work/$1")" = "$right" ] && return 1
        echo 'FAIL steps (other losses)' >>"$work/log"
        return
    fi
    for operation in ${3//,/ }; do
        NN_EMU_ORDER=$2 timeout 300 setarch -R "$work/$1/check_kernels" cuda "$4" full "$operation" >"$work/log" 2>&1 ||
            return 0
    done
    return 1
}

# What noticed it, from the log: the first line that says so.
reason() {
    sed -nE 's/.*(AddressSanitizer: [a-z-]+).*/\1/p; s/.*(ThreadSanitizer: data race).*/\1/p
             s/.*(runtime error: .*)/\1/p; s/^cuda_on_cpu: ERROR: (.*)/\1/p; s/^(FAIL [^ ]+) .*/\1/p
             s/^wrong on this GPU.s tensor cores: .*/the check at start/p' "$work/log" |
        head -n 1 | cut -c 1-40
}

try() { # try FILE LINE UNIT OPERATION DTYPE: the mutant is $work/kernels/cuda/FILE
    local file=$1 line=$2 unit=$3 operation=$4 dtype=$5 result='NOT NOTICED' how order
    unset NN_WGMMA NN_EMU_CAPABILITY
    if [[ $unit == *_wgmma.cu ]]; then export NN_WGMMA=1 NN_EMU_CAPABILITY=90; fi
    for how in asan tsan; do
        build "$unit" $how || { result='does not build' && break; }
        for order in $([ $how = asan ] && echo reverse random || echo forward); do
            if noticed $how "$order" "$operation" "$dtype"; then
                result="$how, $order: $(reason)"
                break 2
            fi
        done
    done
    case $result in NOT*) missed=$((missed + 1)) ;; *) caught=$((caught + 1)) ;; esac
    printf '| %s:%s | `%s` | %s |\n' "$file" "$line" \
        "$(sed -n "${line}p" "kernels/cuda/$file" | sed -E 's/^ *//; s, *//.*,,' | cut -c 1-40)" "$result"
}

mutate() { # mutate SED FILE LINE UNIT OPERATION DTYPE
    mkdir -p "$work/kernels/cuda"
    rm -f "$work"/kernels/cuda/*
    sed "$3$1" "kernels/cuda/$2" >"$work/kernels/cuda/$2"
    shift
    cmp -s "$work/kernels/cuda/$1" "kernels/cuda/$1" || try "$@"
}

# What is right must not be noticed, or everything would be.
if [ -z "$only" ] || [ "$only" = graphs.cu ]; then
    if ! build graphs.cu asan || noticed asan reverse norm bf16 || noticed asan reverse steps bf16; then
        echo "mutate.sh: without a fault: $(tail -n 1 "$work/log")" >&2
        exit 2
    fi
fi

echo '| where | deleted, < made <=, or a wrong layout or order | noticed by |'
echo '| --- | --- | --- |'
while read -r file use; do
    [[ $file == *"$only"* ]] || continue
    for line in $(grep -nE "^ *($waits)[^;]*;" "kernels/cuda/$file" | cut -d : -f 1); do
        # shellcheck disable=SC2086 # three words
        mutate "s/\\(${waits//|/\\|}\\)[^;]*;//" "$file" "$line" $use
    done
done <<<"$users"
while read -r file unit operation dtype text; do
    [[ $file == *"$only"* ]] || continue
    line=$(grep -nF "$text" "kernels/cuda/$file" | head -n 1 | cut -d : -f 1)
    [ -n "$line" ] || { echo "mutate.sh: no '$text' in $file" >&2 && exit 2; }
    mutate 's/ < / <= /' "$file" "$line" "$unit" "$operation" "$dtype"
done <<<"$guards"
while read -r file unit operation dtype change text; do
    [[ $file == *"$only"* ]] || continue
    line=$(grep -nF "$text" "kernels/cuda/$file" | head -n 1 | cut -d : -f 1)
    [ -n "$line" ] || { echo "mutate.sh: no '$text' in $file" >&2 && exit 2; }
    mutate "$change" "$file" "$line" "$unit" "$operation" "$dtype"
done <<<"$layouts"
echo
echo "$caught noticed, $missed not"
[ "$missed" -eq 0 ]
