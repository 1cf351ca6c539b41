#!/usr/bin/env bash
# Prints nvcc's options for the GPU architectures to build for, and after # their names.
#   scripts/cuda_archs.sh NVCC [WANTED]
# WANTED: empty: the GPUs of this machine, without one sm_80 and PTX for later ones; all: every
# architecture of a release that this nvcc knows; or a list such as "80 90".
set -euo pipefail
nvcc=$1 wanted=${2-}
known=$("$nvcc" --list-gpu-code | sed -n 's/^sm_\([0-9]*\)$/\1/p' | sort -n)

knows() { grep -qx "$1" <<<"$known"; }

# Compute capabilities of the GPUs here: "8.9" is 89.
present() {
    local smi
    for smi in nvidia-smi /usr/lib/wsl/lib/nvidia-smi; do
        command -v "$smi" >/dev/null || continue
        timeout 10 "$smi" --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
            sed -n 's/^\([0-9]*\)\.\([0-9]\)$/\1\2/p' | sort -un
        return
    done
}

archs=() ptx=''
case $wanted in
'')
    for arch in $(present); do
        if knows "$arch"; then
            archs+=("$arch")
        else
            echo "cuda_archs.sh: this nvcc knows no sm_$arch, the GPU here: another toolkit is needed" \
                "(scripts/doctor.sh)" >&2
        fi
    done
    if [ ${#archs[@]} -eq 0 ]; then archs=(80) ptx=80; fi
    ;;
all)
    for arch in 75 80 86 89 90 100 120; do
        if knows "$arch"; then archs+=("$arch") ptx=$arch; fi
    done
    ;;
*)
    for arch in $wanted; do
        arch=${arch#sm_}
        if ! knows "$arch"; then
            echo "cuda_archs.sh: CUDA_ARCHS: this nvcc knows no sm_$arch, only ${known//$'\n'/ }" >&2
            exit 2
        fi
        archs+=("$arch")
    done
    ;;
esac

# sm_90a: sm_90 with the instructions that only this generation has (wgmma).
for arch in "${archs[@]/#90/90a}"; do printf -- '-gencode arch=compute_%s,code=sm_%s ' "$arch" "$arch"; done
[ -z "$ptx" ] || printf -- '-gencode arch=compute_%s,code=compute_%s ' "$ptx" "$ptx"
echo "# ${archs[*]/#/sm_}${ptx:+ and PTX $ptx}"
