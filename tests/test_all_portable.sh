#!/usr/bin/env bash
# The portable build with each set of instructions that this processor has, as NN_CPU chooses it:
# the kernels, and the tests whose results may depend on the set. `make test-sets` runs all tests so.
. "$(dirname "$0")/lib.sh"
[ -z "$SANITIZE" ] || { skip "portable build" "not with SANITIZE=1" && finish; }
portable=build/portable
ok "portable build" make -s PORTABLE=1 NVCC= $portable/{check_kernels,train_mlp,train_cnn,train_airbench,predict,data/prepare} \
    $portable/tests/compare_models

# check_kernels, to which the processor seems to lack one feature: the bit of $WITHOUT in what libgcc
# found out. The layout is libgcc's ABI.
cat >"$work/without.c" <<'C'
#include <stdlib.h>
extern struct {
    unsigned vendor, type, subtype, features;
} __cpu_model;
__attribute__((constructor(200))) static void without(void)
{
    __cpu_model.features &= ~(1u << atoi(getenv("WITHOUT")));
}
C
ok "link without features" gcc -fopenmp -o "$work/without" "$work/without.c" \
    $portable/{base,train,kernels,data,data/decode}/*.o \
    $portable/tests/check_kernels.o -lz -lm -ldl -pthread
best() { # best BIT NAME: without a feature the best set that is left is NAME
    WITHOUT=$1 "$work/without" cpu fp32 quick alloc | grep -qE "threads?, $2$"
}

# Sets, how the CPU backend calls them, and of each one feature that it needs beside those of its
# name, by its bit in libgcc, and the set that is taken without it.
while IFS=: read -r set name feature bit next; do
    export NN_CPU=$set
    if $portable/check_kernels cpu fp32 quick alloc 2>&1 | grep -q "which this processor lacks"; then
        fails "$set is refused" 2 "NN_CPU=$set, which this processor lacks" $portable/check_kernels cpu fp32 quick
        skip "$set" "this processor lacks $name"
        continue
    fi
    for dtype in fp32 bf16; do
        ok "$set $dtype" $portable/check_kernels cpu $dtype quick
        cp "$work/out" "$work/checked" # as ok() will write the other
        ok "$set $dtype is $name" grep -qE "threads?, $name( and AMX)?$" "$work/checked"
    done
    for test in test_golden test_repeat test_cli; do
        ok "$set $test" env BUILD=$portable tests/$test.sh
    done
    [ -n "$feature" ] || continue
    fails "$set without $feature" 2 "which this processor lacks" \
        env WITHOUT="$bit" "$work/without" cpu fp32 quick alloc
    unset NN_CPU
    ok "without $feature: $next" best "$bit" "$next"
done <<'END'
v1:no AVX2
v3:AVX2:FMA:14:no AVX2
v4:AVX-512:AVX512BW:21:AVX2
v4bf16:AVX-512 with bf16:AVX512VL:20:AVX2
END
for set in v5 ''; do
    fails "NN_CPU='$set' is refused" 2 "NN_CPU=$set: unset it or take one of v4bf16 v4 v3 v1" \
        env NN_CPU="$set" $portable/check_kernels cpu fp32 quick
done
finish
