#!/usr/bin/env bash
# The portable build's kernels for each instruction set, of which a program uses the best: here each
# is linked alone.
. "$(dirname "$0")/lib.sh"
[ -z "$SANITIZE" ] || { skip "portable kernels" "not with SANITIZE=1" && finish; }
ok "portable build" make -s PORTABLE=1 build/portable/check_kernels
shopt -s extglob nullglob
objects=(build/portable/{runtime,timing,kernels/reference}/*.o build/portable/data/!(prepare).o
    build/portable/kernels/!(open).o build/portable/tests/check_kernels.o)
# What libgcc found out about the processor, without one feature. The layout is libgcc's ABI.
cat >"$work/without.c" <<'C'
extern struct {
    unsigned vendor, type, subtype, features;
} __cpu_model;
__attribute__((constructor(200))) static void without(void)
{
    __cpu_model.features &= ~(1u << BIT);
}
C
# Instruction sets, how the CPU backend calls them, and of each one feature that it needs beside
# those of its name, by its bit in libgcc.
while IFS=: read -r set name feature bit; do
    ok "link $set" gcc -std=gnu11 -D_GNU_SOURCE -I. -fopenmp "-DCPU_SETS(F)=F($set)" \
        -o "$work/check" kernels/open.c "${objects[@]}" -lz -lm -pthread
    if [ -n "$feature" ]; then
        gcc "-DBIT=$bit" -std=gnu11 -D_GNU_SOURCE -I. -fopenmp "-DCPU_SETS(F)=F($set)" \
            -o "$work/without" kernels/open.c "$work/without.c" "${objects[@]}" -lz -lm -pthread
        fails "$set without $feature" 5 "which this processor lacks" "$work/without" cpu fp32 quick alloc
    fi
    for dtype in fp32 bf16; do
        "$work/check" cpu $dtype quick >"$work/checked" 2>&1
        if grep -q "which this processor lacks" "$work/checked"; then
            skip "$set $dtype" "this processor lacks $name"
        else
            ok "$set $dtype" grep -q "^0 operations failed" "$work/checked"
            ok "$set $dtype is $name" grep -qE "threads?, $name( and AMX)?$" "$work/checked"
        fi
    done
done <<'END'
v4bf16:AVX-512 with bf16:AVX512VL:20
v4:AVX-512:AVX512BW:21
v3:AVX2:FMA:14
v1:no AVX2
END
finish
