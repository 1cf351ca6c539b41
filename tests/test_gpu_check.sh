#!/usr/bin/env bash
# scripts/gpu_check.sh without a GPU: it says so; and on a pretended one, with programs that print
# what real ones would: what goes into the report, and that what fails makes it fail.
. "$(dirname "$0")/lib.sh"
if [ -e /dev/nvidia0 ] || [ -e /dev/dxg ] || command -v nvidia-smi >/dev/null; then
    skip gpu_check "there is a GPU here: run scripts/gpu_check.sh"
    finish
fi
fails "no GPU" 5 "no GPU to check" scripts/gpu_check.sh
mkdir -p "$work/mine/run-mine" "$work/before"
touch "$work/mine"/{mine.log,data.tsv}
fails "a folder with other files" 2 "holds other files" scripts/gpu_check.sh "$work/mine"
printf 'build\tok\t9\t\n' >"$work/before/results.tsv"
fails "no GPU, an earlier report" 5 "no GPU to check" scripts/gpu_check.sh "$work/before"
ok "nothing was deleted" test -s "$work/before/results.tsv" -a -d "$work/mine/run-mine" -a \
    -e "$work/mine/mine.log" -a -e "$work/mine/data.tsv"

tree=$work/tree
mkdir -p "$tree"/{scripts,bin}
cp scripts/gpu_check.sh "$tree/scripts"
program() { printf '#!/bin/bash\n%s\n' "$2" >"$tree/$1" && chmod +x "$tree/$1"; }
program bin/nvidia-smi '[ "$1" = -L ] && echo "GPU 0: Fake" || echo 580.1'
program bin/nvcc 'echo "Cuda compilation tools, release 13.0, V13.0.88"'
program stub_check 'echo "cuda:0: NVIDIA \"Fake\", sm_90, 132 SMs"
    if [ -e broken ] && [ "$2 $3" = "bf16 full" ]; then kill -9 $$; fi
    if [ -e slow ] && [ $3 = full ]; then sleep 100; fi
    if [ -e broken ] && [ $2 = tf32 ]; then echo "FAIL add (1 of 9 shapes)"; exit 1; fi
    echo "0 operations failed"'
program stub_time 'printf "device\tFake\t%s\nceiling\tcopy\t4300\nceiling\tmatmul\t790.12\n" $2
    printf "time\tadd\t2000x31x31x3 to 24\t12.5\t2000\t0.00\t0.465\n"'
program stub_collectives '[ ! -e broken ] || exit 1; echo "ok     a step, 1 ranks"'
program stub_train 'while [ $# -gt 0 ]; do
    [ "$1" = --out ] && out=$2
    [ "$1" = --profile ] && printf "result\nweights\nprofile  39 steps of 0.5 ms\ngather input 1 0.01 2%%\n"
    [ "$1" = --selftest ] && echo "selftest passed" && exit
    [ "$1" = --resident ] && [ -e broken ] && other=x
    [ "$1" = --graph ] && [ -e broken ] && other=9
    shift
done
mkdir -p $out && echo w$other >$out/model.safetensors
echo "{\"step\":1,\"epoch\":0.1,\"loss\":2.3,\"lr\":1}" >$out/log.jsonl
echo "{\"cold\":{\"test_loss\":1.5$other}}" >$out/speedrun.json
echo "{\"test_accuracy\":0.99,\"images_per_s\":5000,\"seed\":1}" >$out/summary.json'
printf '%s\n' 'train_mlp train_cnn train_airbench: ; @cp stub_train $@' \
    'build/native/check_kernels build/native/time_kernels: ; @mkdir -p build/native' \
    '	@cp stub_$(patsubst %_kernels,%,$(notdir $@)) $@' \
    'build/native/check_collectives build/native/time_collectives: ; @mkdir -p build/native/kernels/cuda' \
    '	@cp stub_collectives $@; echo -DNN_NCCL >build/native/kernels/cuda/nccl' >"$tree/Makefile"

check() { (cd "$work" && PATH=$tree/bin:$PATH "$tree/scripts/gpu_check.sh" report); }
has() { sed -E "s,\| (ok|FAIL|skip) \| [0-9]+ ,| \1 ," "$work/report/report.md" | grep -qF -- "$1"; }
valid() { python3 -m json.tool "$work/report/report.json" /dev/null; }

ok "a GPU without faults" check
ok "times" has "| add | 2000x31x31x3 to 24 | 12.5 | 2000 | 0.00 | 0.465 |"
ok "profile" has "gather input 1 0.01 2%"
ok "ceilings" has "copy 4300 GB/s, matrix product 790.12 TFLOP/s"
ok "accuracy" has "| learns embedded-cnn | ok | test_accuracy:0.99 images_per_s:5000 |"
ok "same bits" has "| same bits cnn resident, sent | ok | same weights and 1 same losses |"
ok "same results" has "| same bits mlp several steps a launch, calls | ok | same test losses |"
ok "times by wgmma" has "## Operations, bf16-wgmma"
ok "sums" has "| sums, 1 process | ok | ok     a step, 1 ranks |"
ok "sums of several are skipped" has "| sums, several GPUs | skip | it takes two GPUs and mpirun |"
ok "skipped by name" has "| learns cifar10-cnn | skip | data/cifar10 is not here"
if command -v python3 >/dev/null; then ok "JSON" valid; else skip JSON "python3 is missing"; fi

if command -v nvcc >/dev/null || [ -e /usr/local/cuda/bin/nvcc ]; then
    skip "no toolkit" "there is one here"
else
    mv "$tree/bin/nvcc" "$work"
    fails "no toolkit" 5 "error: nvcc is missing" check
    mv "$work/nvcc" "$tree/bin"
fi

touch "$tree/broken"
if check >"$work/out"; then miss "a fault fails"; else pass "a fault fails"; fi
ok "a wrong operation" has "| operations tf32 | FAIL | status 1: FAIL add (1 of 9 shapes) |"
ok "a part that was killed" has "| operations bf16 | FAIL | killed"
ok "wrong sums" has "| sums, 1 process | FAIL | status 1"
ok "other results" has "| same bits mlp several steps a launch, calls | FAIL |"
ok "other bits" has "| same bits mlp resident, sent | FAIL |"

# ---- eight minutes that are over, here after eight seconds ----
rm "$tree/broken"
touch "$tree/slow"
sed -i 's/end=$((SECONDS + 470))/end=$((SECONDS + 8))/' "$tree/scripts/gpu_check.sh"
ok "what the time cuts off is no failure" check
ok "it is skipped" has "| stopped: the 8 minutes were over |"
ok "and so is what follows" has "| no time left of the 8 minutes |"
finish
