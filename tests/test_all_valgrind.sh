#!/usr/bin/env bash
# Valgrind's memcheck is silent: no wrong or undefined access, nothing definitely lost, in the unit
# tests of what reads files and in short runs of every program. With the portable build, since
# valgrind knows no AVX-512.
. "$(dirname "$0")/lib.sh"
[ -z "$SANITIZE" ] || { skip "valgrind" "sanitized programs do not run under it" && finish; }
command -v valgrind >/dev/null || { skip "valgrind" "not installed (scripts/setup.sh --dev)" && finish; }
bin=$PWD/build/portable
units=(args config dataset error folder idx image init json loader model_file order safetensors shard)
for i in "${!units[@]}"; do [ -e "tests/test_${units[$i]}.c" ] || unset "units[$i]"; done
ok "portable build" make -s PORTABLE=1 "${units[@]/#/build/portable/tests/test_}" \
    "$bin"/train_mlp "$bin"/train_cnn "$bin"/predict "$bin"/data/prepare
