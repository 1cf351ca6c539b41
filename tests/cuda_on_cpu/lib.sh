# shellcheck shell=bash
# Sourced by the tests of the emulated CUDA backend; see tests/lib.sh.
# shellcheck source=tests/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
emulated=$PWD/$BUILD/emulated

if [ -n "$SANITIZE" ]; then
    skip "the CUDA backend on the CPU" "it has its own sanitized build, without SANITIZE=1"
    finish
fi
if [ ! -e "$emulated/asan/libnn_cuda.so" ]; then
    skip "the CUDA backend on the CPU" "it needs g++ and the CUDA toolkit's headers (nvcc), on x86-64"
    finish
fi

# emulated HOW ORDER PROGRAM ARGUMENTS...: one of its programs. Some kernels spread addresses more
# than ThreadSanitizer can take; some containers do not allow to change that.
export TSAN_OPTIONS=halt_on_error=1 ASAN_OPTIONS=detect_stack_use_after_return=0 OMP_NUM_THREADS=1
ulimit -c 0
fixed_addresses=()
if setarch -R true 2>/dev/null; then fixed_addresses=(setarch -R); fi
emulated() {
    local how=$1 order=$2 program=$3
    shift 3
    NN_EMU_ORDER=$order "${fixed_addresses[@]}" "$emulated/$how/$program" "$@"
}

# reported FAULT HOW ORDER: a planted fault (faults.cu) does not stay unnoticed.
reported() {
    local text='AddressSanitizer|ThreadSanitizer|runtime error:|cuda_on_cpu: ERROR|wrong result'
    emulated "$2" "$3" faults "$1" >"$work/fault" 2>&1
    local status=$?
    if [ $status -ne 0 ] && [ $status -ne 2 ] && grep -qE "$text" "$work/fault"; then
        pass "reported: $1 ($2, $3)"
    else
        miss "reported: $1 ($2, $3): status $status: $(head -n 3 "$work/fault")"
    fi
}

agrees() { # agrees HOW ORDER DTYPE quick|full [OPERATION]
    local how=$1 order=$2 dtype=$3
    shift 3
    ok "operations: $how, $order, $dtype $*" emulated "$how" "$order" check_kernels cuda "$dtype" "$@"
}

losses() { sed -nE 's/.*"loss": ?([0-9.e+-]+).*/\1/p' "$1/log.jsonl"; }

# Losses of a few steps, line by line within a share of the loss.
#   fp32   sums in another order: 2^-24 * sqrt(terms of a sum, 4096) * layers (10) = 4e-5, and four
#          steps of training amplify it by less than 4: 2e-4
#   tf32   factors rounded to 11 bits, 2^-11 each; they are independent, so that a sum of many terms
#          has a smaller share of error; layers (10) * 2^-11 = 5e-3, times 4: 2e-2
#   bf16   8 bits, 2^-9 each: 10 * 2^-9 = 2e-2, times 4: 8e-2
tolerance() {
    case $1 in fp32) echo 2e-4 ;; tf32) echo 2e-2 ;; bf16) echo 8e-2 ;; esac
}

losses_agree() { # losses_agree RUN RUN TOLERANCE
    paste -d' ' <(losses "$1") <(losses "$2") |
        awk -v tolerance="$3" '{d = $1 - $2; if (d < 0) d = -d; print
            if (NF != 2 || !(d <= tolerance * $2)) bad = 1}
            END {exit bad || NR != 4}'
}

# same_losses HOW ORDER DTYPE mlp|cnn|airbench|plain: four steps on the golden pictures, beside the CPU's.
same_losses() {
    local how=$1 order=$2 dtype=$3 net=$4 name=$1-$2-$3-$4
    local options=(--steps 4 --batch-size 16 --quiet --seed 3)
    case $net in
    mlp) options+=(--data "$work/grey" --hidden "24,16") ;;
    cnn) options+=(--data "$work/colour" --width "0.125") ;;
    airbench) options+=(--data "$work/colour" --width "0.125" --tta 0) ;;
    plain) options+=(--data "$work/grey" --net plain --width "0.5") ;;
    esac
    local program=train_cnn
    case $net in mlp | airbench) program=train_$net ;; esac
    [ -d "$work/grey" ] || "$prepare" idx tests/golden/grey --out "$work/grey" >/dev/null
    [ -d "$work/colour" ] || "$prepare" cifar tests/golden/colour --out "$work/colour" >/dev/null
    if [ ! -d "$work/cpu-$net" ]; then
        ok "$net on the CPU" "$BUILD/$program" "${options[@]}" --device cpu --out "$work/cpu-$net"
    fi
    ok "$net trains: $how, $order, $dtype" emulated "$how" "$order" $program "${options[@]}" --device cuda \
        --dtype "$dtype" --out "$work/$name"
    ok "$net losses: $how, $order, $dtype" losses_agree "$work/$name" "$work/cpu-$net" "$(tolerance "$dtype")"
}

# several_steps NAME ORDERS PROGRAM OPTION...: a run that reads nothing between its steps, so that one
# launch runs several of them, twice in a process; beside one without graphs.
several_steps() {
    local name=$1 orders=$2 program=$3
    shift 3
    local options=("$@" --speedrun --seeds 1 --quiet --device cuda)
    rm -rf "$work"/several-*
    ok "several steps, $name: calls alone" emulated asan forward "$program" "${options[@]}" --graph off \
        --out "$work/several-off"
    for order in $orders; do
        ok "several steps, $name: $order" emulated asan $order "$program" "${options[@]}" --out "$work/several-$order"
        ok "several steps, $name: $order: the same bits" cmp <(test_losses "$work/several-off") \
            <(test_losses "$work/several-$order")
    done
}
test_losses() { grep -oE '"test_loss": ?[0-9.e+-]+' "$1/speedrun.json"; }
