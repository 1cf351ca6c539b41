#!/usr/bin/env bash
# Called by `make test-sets`: the portable build's tests, all or those named, once for each set of
# instructions that this processor has.
set -u
cd "$(dirname "$0")/.." || exit 1
results='' failed=0
for set in v1 v3 v4 v4bf16; do
    if NN_CPU=$set build/portable/check_kernels cpu fp32 quick alloc 2>&1 | grep -q "which this processor lacks"; then
        results+="$set: this processor lacks it"$'\n'
        continue
    fi
    echo "== NN_CPU=$set"
    NN_CPU=$set ${MAKE:-make} PORTABLE=1 NVCC= ONLY="$*" test | tee build/portable/tests-of-set
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
    results+="$set: $(grep -E '^[0-9]+ passed, ' build/portable/tests-of-set | tail -n 1)"$'\n'
done
echo "== all sets"
printf %s "$results"
exit $failed
