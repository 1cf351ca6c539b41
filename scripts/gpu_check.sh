#!/usr/bin/env bash
# Everything that only a machine with a GPU can show, in one report; see --help.
set -u

usage() {
    cat <<'END'
Usage: scripts/gpu_check.sh [DIR]

On a machine with an NVIDIA GPU: builds nn.c, compares every operation on the GPU with the fp64
reference, checks the gradients of both trainers and the sums over processes by NCCL, runs
compute-sanitizer on small shapes, trains both networks, compares runs that must have the same bits
(graphs on and off, several steps a launch, data resident and sent), and times the operations beside
what the GPU can do at most; on sm_90 also with the convolutions that NN_WGMMA=1 turns on. Takes under
8 minutes; needs the CUDA toolkit, gcc, make and zlib. What cannot run here is skipped by name.

bench/gpu/run.sh compares speed with PyTorch's (docs/performance-gpu.md).

Writes report.md, report.json and a log of each part to DIR (default: build/gpu_check), which must be
new, empty or of an earlier check, whose files are replaced.

Exit status: 0 no part failed; 1 a part failed; 2 wrong use; 5 there is no GPU to check, or
no CUDA toolkit to build for it.
END
}

case ${1-} in
-h | --help) usage && exit 0 ;;
-*) usage >&2 && exit 2 ;;
esac
out=${1:+$(realpath -m -- "$1")}
cd "$(dirname "$0")/.." || exit 1
out=${out:-$PWD/build/gpu_check} build=build/native
began=$SECONDS end=$((SECONDS + 470))
results=$out/results.tsv # lines of part, status, seconds, remark

# What is in DIR will be deleted, so that it must be empty or this script's own.
ours() { [ -f "$results" ] && ! grep -qvP '^[^\t]+\t(ok|FAIL|skip)\t\d+\t' "$results"; }
if [ -e "$out" ] && [ -n "$(ls -A "$out" 2>&1)" ] && ! ours; then
    echo "error: $out: holds other files: choose a new or empty directory" >&2
    exit 2
fi

# ---- what is here --------------------------------------------------------------------------------

find_tool() { # find_tool NAME PLACE...: its path
    local name=$1 place
    command -v "$name" && return
    shift
    for place in "$@"; do [ -x "$place/$name" ] && echo "$place/$name" && return; done
    return 1
}

stop() {
    echo "error: $1; scripts/doctor.sh says more" >&2
    exit 5
}
no_gpu() { stop "no GPU to check: $1"; }

smi=$(find_tool nvidia-smi /usr/lib/wsl/lib) || smi=
if [ -z "$smi" ] && ! [ -e /dev/nvidia0 ] && ! [ -e /dev/dxg ]; then
    no_gpu "no nvidia-smi, no /dev/nvidia0, no /dev/dxg"
fi
nvcc=$(find_tool nvcc /usr/local/cuda/bin) || stop "nvcc is missing: install the CUDA toolkit"
sanitizer=$(find_tool compute-sanitizer /usr/local/cuda/bin) || sanitizer=

mkdir -p "$out" || exit 1
rm -rf "$out"/*.log "$out"/*.tsv "$out"/run-*
: >"$results"

# ---- parts ---------------------------------------------------------------------------------------

record() { # record NAME STATUS SECONDS REMARK
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$results"
    printf '%-4s %-34s %5s s  %s\n' "$2" "$1" "$3" "$4"
}

# part NAME LIMIT COMMAND...: its output goes to NAME.log, whose last line is the remark.
part() {
    local name=$1 limit=$2 start=$SECONDS status left=$((end - SECONDS))
    local log=$out/${name//[^a-zA-Z0-9]/-}.log
    shift 2
    if [ "$left" -lt 5 ]; then
        record "$name" skip 0 "no time left of the 8 minutes"
        return 1
    fi
    timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$log" 2>&1 </dev/null
    status=$?
    case $status in
    0) record "$name" ok $((SECONDS - start)) "$(tail -n 1 "$log" | tr '\t|' '  ' | cut -c1-100)" ;;
    124 | 137) # timeout's, or of a part that was killed before
        if [ $((SECONDS - start)) -lt "$((limit < left ? limit : left))" ]; then
            record "$name" FAIL $((SECONDS - start)) "killed, or status $status of its own"
        elif [ "$limit" -le "$left" ]; then
            record "$name" FAIL $((SECONDS - start)) "not done after $limit s"
        else
            record "$name" skip $((SECONDS - start)) "stopped: the 8 minutes were over"
        fi
        ;;
    *) record "$name" FAIL $((SECONDS - start)) \
        "status $status: $( (grep -E '^(FAIL|error)' "$log" || tail -n 1 "$log") | head -n 1 |
            tr '\t|' '  ' | cut -c1-160)" ;;
    esac
    return $status
}

# The same bits: both runs' weights and losses.
same_runs() {
    cmp "$out/$1/model.safetensors" "$out/$2/model.safetensors" || return 1
    for run in "$1" "$2"; do
        sed -nE 's/.*"step":([0-9]+),.*"loss":([^,]+),.*/\1 \2/p' "$out/$run/log.jsonl" >"$out/$run.losses"
    done
    cmp "$out/$1.losses" "$out/$2.losses" && [ -s "$out/$1.losses" ] &&
        echo "same weights and $(wc -l <"$out/$1.losses") same losses"
}

train() { # train NAME PROGRAM OPTION...: into DIR/run-NAME
    local name=$1
    shift
    rm -rf "$out/run-$name"
    "$@" --device cuda --out "$out/run-$name" || return
    grep -oE '"(test_accuracy|images_per_s)":[^,]+' "$out/run-$name/summary.json" | tr -d '"' | xargs
}

# Nothing is read between the steps of a --speedrun, so that one launch runs several of them.
speedrun() { # speedrun NAME PROGRAM OPTION...: into DIR/run-NAME
    local name=$1
    shift
    rm -rf "$out/run-$name"
    "$@" --speedrun --seeds 1 --quiet --device cuda --out "$out/run-$name" || return
    grep -oE '"test_loss": ?[^,]+' "$out/run-$name/speedrun.json" | xargs | tee "$out/run-$name.results"
}
same_results() {
    cmp "$out/$1.results" "$out/$2.results" && [ -s "$out/$1.results" ] && echo "same test losses"
}
export -f same_runs train speedrun same_results
export out

sanitize() { # sanitize TOOL
    if [ -z "$sanitizer" ]; then
        record "compute-sanitizer $1" skip 0 "compute-sanitizer is not installed"
        return
    fi
    part "compute-sanitizer $1" 60 "$sanitizer" --tool "$1" --error-exitcode 9 \
        $build/check_kernels cuda bf16 quick
}

# ---- the run -------------------------------------------------------------------------------------

part build 240 make -j "$(nproc)" CUDA=1 NVCC="$nvcc" train_mlp train_cnn train_airbench $build/check_kernels \
    $build/check_collectives $build/time_collectives $build/time_kernels || {
    tail -n 20 "$out/build.log"
    exit 1
}
timeout -k 5 60 $build/check_kernels cuda auto quick alloc >"$out/device.log" 2>&1
if [ $? -eq 5 ]; then no_gpu "$(head -n 1 "$out/device.log")"; fi
description=$(sed -n '1s/^[^ ]*: //p' "$out/device.log")

dtypes='bf16 tf32 fp32'
timeout -k 5 60 $build/check_kernels cuda bf16 quick alloc >"$out/bf16.log" 2>&1
if [ $? -eq 5 ]; then
    dtypes=fp32
    record "bf16, tf32" skip 0 "$(sed -n 's/^error: //p' "$out/bf16.log" | cut -c1-100)"
fi
for dtype in $dtypes; do
    part "operations $dtype" 60 $build/check_kernels cuda "$dtype" full
done
part "gradients train_mlp" 40 ./train_mlp --device cuda --dtype fp32 --selftest
part "gradients train_cnn" 40 ./train_cnn --device cuda --dtype fp32 --selftest
part "gradients train_cnn plain" 40 ./train_cnn --device cuda --dtype fp32 --net plain --selftest
part "gradients train_airbench" 40 ./train_airbench --device cuda --dtype fp32 --selftest

# Sums by NCCL: of one process, and of one for each GPU where there are several.
sums() {
    local gpus=0
    if ! grep -q NN_NCCL $build/kernels/cuda/nccl; then
        record "sums over processes" skip 0 "no NCCL to build with: install libnccl-dev"
        return
    fi
    part "sums, 1 process" 60 $build/check_collectives cuda
    [ -z "$smi" ] || gpus=$("$smi" -L | grep -c '^GPU')
    if [ "$gpus" -lt 2 ] || ! command -v mpirun >/dev/null; then
        record "sums, several GPUs" skip 0 "it takes two GPUs and mpirun"
        return
    fi
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    part "sums, $gpus processes" 60 mpirun -np "$gpus" $build/check_collectives cuda
    part "times of sums, $gpus processes" 60 mpirun -np "$gpus" $build/time_collectives cuda
}
sums

# learns NAME TARGET PROGRAM OPTION...: to that accuracy. --data DIR is skipped without DIR.
learns() {
    local name=$1 target=$2
    shift 2
    case " $* " in *" --data "*)
        if ! [ -e "data/${name%%-*}" ]; then
            record "learns $name" skip 0 "data/${name%%-*} is not here: scripts/download.sh"
            return
        fi ;;
    esac
    part "learns $name" 90 bash -c 'train "$@"' - "$name" "$@" --target-accuracy "$target"
}
learns embedded-mlp 0.8 ./train_mlp --epochs 5
learns embedded-cnn 0.95 ./train_cnn
learns embedded-airbench 0.95 ./train_airbench
learns mnist-mlp 0.98 ./train_mlp --data data/mnist
learns mnist-cnn 0.985 ./train_cnn --data data/mnist
learns cifar10-cnn 0.86 ./train_cnn --data data/cifar10
learns cifar10-airbench 0.93 ./train_airbench --data data/cifar10

short='--steps 40 --quiet'
for program in mlp cnn airbench; do
    part "$program with graphs" 60 bash -c "train $program-graph ./train_$program $short"
    part "$program without graphs" 60 bash -c "train $program-calls ./train_$program $short --graph off"
    part "$program data sent" 60 bash -c "train $program-sent ./train_$program $short --resident off"
    part "$program profile" 60 bash -c "train $program-profile ./train_$program $short --profile"
    part "same bits $program graph on, off" 10 bash -c "same_runs run-$program-graph run-$program-calls"
    part "same bits $program resident, sent" 10 bash -c "same_runs run-$program-graph run-$program-sent"
    part "$program several steps a launch" 60 bash -c "speedrun $program-several ./train_$program --steps 40"
    part "$program no graphs" 60 bash -c "speedrun $program-none ./train_$program --steps 40 --graph off"
    part "same bits $program several steps a launch, calls" 10 \
        bash -c "same_results run-$program-several run-$program-none"
done

times() { # times NAME DTYPE
    part "times $1" 60 bash -c \
        "$build/time_kernels cuda $2 >$out/times-$1.tsv && grep -c ^time $out/times-$1.tsv"
}
for dtype in $dtypes; do times "$dtype" "$dtype"; done
timed=$dtypes
if [[ $description == *sm_90,* && $dtypes == *bf16* ]]; then
    export NN_WGMMA=1
    part "operations bf16 wgmma" 60 $build/check_kernels cuda bf16 full conv2d
    times bf16-wgmma bf16
    unset NN_WGMMA
    timed="$dtypes bf16-wgmma"
fi
for tool in memcheck racecheck initcheck; do sanitize $tool; done

# ---- the report ----------------------------------------------------------------------------------

driver=unknown
[ -n "$smi" ] && driver=$("$smi" --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
compiler=$("$nvcc" --version | sed -n 's/.*release \([^,]*\),.*/\1/p')
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)

markdown() {
    echo "# nn.c on $description"
    echo
    echo "$(date -u +%Y-%m-%d), commit $commit, driver $driver, CUDA $compiler, $(uname -sr); written by"
    echo "scripts/gpu_check.sh in $((SECONDS - began)) s."
    echo
    echo '| part | result | s | |'
    echo '| --- | --- | --- | --- |'
    awk -F '\t' '{printf "| %s | %s | %s | %s |\n", $1, $2, $3, $4}' "$results"
    for dtype in $timed; do
        [ -s "$out/times-$dtype.tsv" ] || continue
        echo
        echo "## Operations, $dtype"
        echo
        awk -F '\t' '
            $1 == "ceiling" && $2 == "copy" {copy = $3}
            $1 == "ceiling" && $2 == "matmul" {
                printf "Measured ceilings: copy %s GB/s, matrix product %s TFLOP/s. Fraction: the time at the\n", copy, $3
                printf "ceilings over the time taken; maps that fit into the cache may exceed 1.\n\n"
                printf "| operation | shape | us | GB/s | TFLOP/s | fraction |\n| --- | --- | --- | --- | --- | --- |\n"
            }
            $1 == "time" {printf "| %s | %s | %s | %s | %s | %s |\n", $2, $3, $4, $5, $6, $7}' \
            "$out/times-$dtype.tsv"
    done
    for program in mlp cnn airbench; do
        grep -q '^profile ' "$out/$program-profile.log" || continue
        printf '\n## A step of train_%s, without a graph\n\n```\n' $program
        sed '1,/^weights/d; $d' "$out/$program-profile.log"
        echo '```'
    done
}

json() {
    awk -F '\t' -v description="$description" -v commit="$commit" -v driver="$driver" \
        -v compiler="$compiler" -v seconds=$((SECONDS - began)) '
        function text(s) {
            gsub(/[\\"]/, "\\\\&", s)
            gsub(/[^ -~]/, "?", s)
            return "\"" s "\""
        }
        BEGIN {
            printf "{\"device\": %s, \"commit\": %s, \"driver\": %s, \"cuda\": %s, \"seconds\": %d,\n",
                text(description), text(commit), text(driver), text(compiler), seconds
        }
        FILENAME ~ /results\.tsv$/ {
            printf "%s {\"part\": %s, \"result\": %s, \"seconds\": %d, \"remark\": %s}",
                parts++ ? ",\n" : " \"parts\": [\n", text($1), text($2), $3, text($4)
        }
        FILENAME ~ /times-/ && $1 == "device" {
            dtype = FILENAME
            gsub(/.*times-|\.tsv$/, "", dtype)
        }
        FILENAME ~ /times-/ && $1 == "ceiling" {
            ceilings = ceilings sprintf("%s {\"dtype\": %s, \"of\": %s, \"rate\": %s}",
                ceilings ? ",\n" : "", text(dtype), text($2), $3)
        }
        FILENAME ~ /times-/ && $1 == "time" {
            times = times sprintf("%s {\"dtype\": %s, \"operation\": %s, \"shape\": %s, \"us\": %s, \"gb_s\": %s, \"tflop_s\": %s, \"fraction\": %s}",
                times ? ",\n" : "", text(dtype), text($2), text($3), $4, $5, $6, $7)
        }
        END {printf "],\n \"ceilings\": [\n%s],\n \"times\": [\n%s]}\n", ceilings, times}' \
        "$results" "$out"/times-*.tsv
}

for dtype in $timed; do [ -e "$out/times-$dtype.tsv" ] || : >"$out/times-$dtype.tsv"; done
markdown >"$out/report.md"
json >"$out/report.json"
failed=$(grep -c "$(printf '\tFAIL\t')" "$results")
echo "$out/report.md: $failed of $(wc -l <"$results") parts failed, $((SECONDS - began)) s"
[ "$failed" -eq 0 ]
