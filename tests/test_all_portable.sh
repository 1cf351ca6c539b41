#!/usr/bin/env bash
# The portable build's kernels for each instruction set, of which a program uses the best: here each
# is linked alone.
. "$(dirname "$0")/lib.sh"
[ -z "$SANITIZE" ] || { skip "portable kernels" "not with SANITIZE=1" && finish; }
ok "portable build" make -s PORTABLE=1 build/portable/check_kernels
shopt -s extglob nullglob
objects=(build/portable/{runtime,timing,kernels/reference}/*.o build/portable/data/!(prepare).o
    build/portable/kernels/!(open).o build/portable/tests/check_kernels.o)
# Instruction sets and how the CPU backend calls them.
while read -r set name; do
    ok "link $set" gcc -std=gnu11 -D_GNU_SOURCE -I. -fopenmp "-DCPU_SETS(F)=F($set)" \
        -o "$work/check" kernels/open.c "${objects[@]}" -lz -lm -pthread
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
v4bf16 AVX-512 with bf16
v4 AVX-512
v3 AVX2
v1 no AVX2
END
finish
