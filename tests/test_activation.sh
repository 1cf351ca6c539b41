#!/usr/bin/env bash
# The patch of docs/adding_an_activation.md applies, and every check of an operation that takes an
# activation covers the new one; without its cases it does not compile.
. "$(dirname "$0")/lib.sh"
if [ "$BUILD" != build/native ]; then
    skip "the patch that adds an activation" "it is tried in build/native alone"
    finish
fi
tree=$work/tree
mkdir "$tree"
cp -a Makefile base kernels data train pages tests "$tree"
mkdir -p "$tree/build" && cp -a "$BUILD" "$tree/$BUILD"

forward='activation_forward linear_forward conv2d_forward conv2d_pool_forward norm_act_forward
norm_act_inference conv2d_norm_inference conv2d_pool_norm_inference'
backward='activation_backward linear_backward_data bias_act_backward norm_act_backward_sums
norm_act_backward conv2d_norm_backward_data conv2d_pool_norm_backward_data'

sed -n '/^```diff$/,/^```$/p' docs/adding_an_activation.md | sed '1d;$d' >"$work/patch"
applies() { # as it stands, no line of context differs and no hunk has moved
    patch -F0 -p1 -d "$tree" <"$work/patch" >"$work/patch.log" && ! grep -q offset "$work/patch.log"
}
cuda=/usr/local/cuda/include emulated=emulated/fast/kernels/cuda/activation.o # CUDA's file by g++
build() { make -s -C "$tree" NVCC= CUDA_INCLUDE=$cuda "${@/#/$BUILD/}" >"$work/make.log" 2>&1; }
checks() { "$tree/$BUILD/check_kernels" cpu fp32 quick >"$work/log"; }
plant() { # plant PLACE WRONG: in the CPU's file; . stands for what sed or the shell would take
    sed -i "/ACT_LEAKY_RELU/{n;s/$1/$2/}" "$tree/kernels/cpu/activation.h" &&
        grep -A 1 ACT_LEAKY_RELU "$tree/kernels/cpu/activation.h" | grep -qF "$2"
}
fails_where_it_is_used() { # every operation, by cases with the new activation and by no other
    local o
    for o in $forward $backward; do
        grep -q "^FAIL $o (.*leaky_relu.*: " "$work/log" || { echo "$o passes" && return 1; }
    done
    ! grep '^FAIL .*): ' "$work/log" | grep -v leaky_relu &&
        [ "$(grep -c '^FAIL .* shapes)$' "$work/log")" -eq "$(wc -w <<<"$forward $backward")" ]
}
does_not_compile() { ! build "$1" && grep -q "$lacks" "$work/make.log"; }

ok "the patch applies" applies
ok "it changes four files" test "$(grep -c '^+++' "$work/patch")" -eq 4
ok "it builds" build check_kernels tests/test_reference
[ -e $cuda/cublasLt.h ] && ok "CUDA's file compiles" build $emulated
ok "its derivative is that of its value and its bounds hold" "$tree/$BUILD/tests/test_reference"
ok "every operation has it right" checks

ok "ReLU's value instead" plant '0.01f . x' 'vec_set(0.0f)'
ok "ReLU's derivative instead" plant 'vec_set(0.01f)' 'vec_set(0.0f)'
ok "they build" build check_kernels
checks
ok "they fail each operation that takes an activation" fails_where_it_is_used

lacks="ACT_LEAKY_RELU.* not handled in switch"
for file in cpu/activation.h cuda/activation.cuh reference.c; do
    cp kernels/$file "$tree/kernels/$file"
done
ok "the CPU's file without its cases does not compile" does_not_compile kernels/cpu_native_f32/activation.o
ok "nor does the reference" does_not_compile kernels/reference.o
if [ -e $cuda/cublasLt.h ]; then
    ok "nor does CUDA's, by g++" does_not_compile $emulated
    ok "nor by nvcc, which is silent about switches" grep -q "static assertion failed" "$work/make.log"
else
    skip "CUDA's file without its cases" "no $cuda"
fi
finish
