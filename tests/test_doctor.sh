#!/usr/bin/env bash
# scripts/doctor.sh on pretended systems: a root folder with files and a PATH with commands, for
# each the checks that are not ok, the verdict, the fix, and the same from sh, bash and --json.
. "$(dirname "$0")/lib.sh"
doctor=$PWD/scripts/doctor.sh

# What the doctor itself needs; no other command of this machine is on its PATH.
tools=$work/tools
mkdir "$tools"
for tool in awk cat dirname env grep mktemp readlink rm sed sh sleep sort stat timeout tr; do
    ln -s "$(command -v "$tool")" "$tools/$tool"
done

# --- the system in $here

file() { # file PATH TEXT
    [ -d "$here${1%/*}" ] || mkdir -p "$here${1%/*}"
    printf '%s\n' "$2" >"$here$1"
}
gone() { for path; do rm -r "${here:?}$path"; done; }
program() { # program NAME|/PATH OUTPUT [STATUS]
    local path=$1
    case $path in /*) ;; *) path=/bin/$path ;; esac
    file "$path" "#!/bin/sh
printf '%s\n' '$2'
exit ${3:-0}"
    chmod +x "$here$path"
}
hangs() { program "$1" '' && sed -i '2iexec sleep 60' "$here$1"; }
memory() { file /proc/meminfo "MemTotal:       $1 kB
SwapTotal:       4194304 kB"; }
gpu() { program "${4:-nvidia-smi}" "$1, $2, $3, 24564"; } # gpu NAME CAPABILITY DRIVER [PATH]
wsl_gpu() { gpu "$1" "$2" "$3" /usr/lib/wsl/lib/nvidia-smi; }
loader() { program ldconfig "	libcuda.so.1 (libc6,x86-64) => $1"; }
toolkit() { # toolkit VERSION GCC ARCHITECTURES
    program /usr/local/cuda/bin/nvcc "Cuda compilation tools, release $1, V$1.88
$3"
    file /usr/local/cuda/include/crt/host_config.h "#if __GNUC__ > $2"
}
registry() { # registry HWSCHMODE ADAPTER
    program reg.exe "    HwSchMode    REG_DWORD    $1
    DriverDesc    REG_SZ    $2"
}
packages() { program dpkg-query "ii  $1
un  cuda-drivers"; }
pci() { # pci VENDOR: a display controller of it
    file /sys/bus/pci/devices/0000:01:00.0/vendor "$1"
    file /sys/bus/pci/devices/0000:01:00.0/class 0x030000
}

machine() {
    mkdir -p "$here/bin"
    file /etc/os-release 'PRETTY_NAME="Ubuntu 24.04.3 LTS"
ID=ubuntu
VERSION_ID="24.04"'
    file /proc/mounts '/dev/sdc / ext4 rw 0 0
C:\134 /mnt/c 9p rw,aname=drvfs 0 0'
    file /proc/cpuinfo 'processor	: 0'
    memory 16000000
    file /sys/devices/system/clocksource/clocksource0/current_clocksource tsc
    program g++ 13
    program id 0
    program dpkg-query '' 1
    toolkit 13.0 15 'sm_75
sm_86
sm_89
sm_120'
}
kernel() {
    file /proc/sys/kernel/osrelease "$1"
    file /proc/version "Linux version $1 (builder) #1 SMP"
}
wsl() {
    machine
    kernel 6.6.87.2-microsoft-standard-WSL2
    file /dev/dxg ''
    for library in libcuda.so.1 libdxcore.so libd3d12.so; do file "/usr/lib/wsl/lib/$library" ''; done
    wsl_gpu 'NVIDIA GeForce RTX 4090' 8.9 581.15
    loader /usr/lib/wsl/lib/libcuda.so.1
    file /proc/sys/fs/binfmt_misc/WSLInterop enabled
    program wsl.exe 'WSL version: 2.6.3.0'
    program powercfg.exe 'Power Scheme GUID: 381b4222-f694-41f0-9685-ff5bb260df2e  (Balanced)'
    registry 0x2 'NVIDIA GeForce RTX 4090'
}
native() {
    machine
    kernel 6.8.0-60-generic
    pci 0x10de
    file /proc/driver/nvidia/version 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build'
    file /usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06 ''
    ln -s libcuda.so.580.65.06 "$here/usr/lib/x86_64-linux-gnu/libcuda.so.1"
    loader /usr/lib/x86_64-linux-gnu/libcuda.so.1
    for device in nvidiactl nvidia0 nvidia-uvm; do file /dev/$device ''; done
    program modinfo /lib/modules/nvidia.ko
    gpu 'NVIDIA GeForce RTX 4090' 8.9 580.65.06
}
no_driver() { # no_driver [INSTALLED]
    gone /proc/driver /dev /bin/nvidia-smi /usr/lib/x86_64-linux-gnu
    loader /nothing && program ldconfig ''
    [ -n "${1-}" ] || program modinfo 'modinfo: ERROR: Module nvidia not found.' 1
}
wsl_container() { wsl && file /.dockerenv ''; }
native_container() { native && file /.dockerenv '' && gone /bin/modinfo; }

# --- system NAME BASE [VARIABLE=VALUE...]; its changes; expect CHECKS VERDICT [TEXT...]

system() {
    name=$1 here=$work/system$((++systems)) directory=/root/nn.c
    settings=("${@:3}")
    mkdir "$here"
    "$2"
}
systems=0

run() { # run OUT SHELL OPTIONS...: the exit status is in OUT.status
    local out=$1
    shift
    [ -n "${missing-}" ] || mkdir -p "$here$directory"
    env -i PATH="$here/bin:$tools" HOME=/root NN_DOCTOR_ROOT="$here" "${settings[@]}" \
        timeout 10 "$@" "$directory" >"$out" 2>"$out.err"
    echo $? >"$out.status"
}
agree() { # both shells, nothing on stderr, the status that the verdict has
    local status=0
    case $verdict in CPU*) status=1 ;; esac
    cmp "$here.sh" "$here.bash" && cat "$here".*.err && [ ! -s "$here.sh.err" ] &&
        [ ! -s "$here.bash.err" ] && [ ! -s "$here.json.err" ] &&
        [ "$(cat "$here".*.status | sort -u)" = $status ]
}
expected() { # expected CHECKS TEXT...
    local checks text
    checks=$(sed -nE 's/^  (warn|FAIL)  ([a-z-]+).*/\1 \2/p' "$here.sh" | paste -sd, | sed 's/,/, /g')
    [ "$checks" = "$1" ] || { echo "checks: $checks" && return 1; }
    [ "$(tail -n 1 "$here.sh")" = "$verdict" ] || { tail -n 1 "$here.sh" && return 1; }
    for text in "${@:2}"; do
        grep -qF -- "$text" "$here.sh" || { cat "$here.sh" && return 1; }
    done
}
expect() {
    local checks=$1
    verdict=$2
    shift 2
    run "$here.sh" "$(command -v dash || command -v sh)" "$doctor" &
    run "$here.bash" "$BASH" "$doctor" &
    run "$here.json" sh "$doctor" --json &
    wait
    printf '%s' "$verdict" >"$here.verdict"
    ok "$name: $verdict" expected "$checks" "$@"
    ok "$name: shells agree" agree
}
cpu='CPU only, because'

system 'healthy WSL 2' wsl
directory=/home/me/nn.c
file /proc/cpuinfo "$(printf 'processor	: %s\n' {0..11})"
expect '' 'ready for CUDA' 'WSL 2: Ubuntu 24.04.3 LTS, kernel 6.6.87.2' 'compute capability 8.9'

shown() {
    same_text "$(awk '/test_doctor.sh compares this/ {here = 1} /^```/ {fences += here; next} here && fences == 1' docs/wsl.md)" \
        "$(sed "s|$here||" "$here.sh")"
}
ok "docs/wsl.md shows what is printed" shown

system 'WSL 1' machine WSL_DISTRO_NAME=Ubuntu
kernel 4.4.0-19041-Microsoft
expect 'FAIL platform' "$cpu this is WSL 1, which has no GPU" 'wsl --set-version Ubuntu 2'

system 'WSL 2, old kernel' wsl
kernel 5.4.72-microsoft-standard-WSL2
expect 'FAIL kernel' "$cpu the WSL kernel 5.4.72-microsoft-standard-WSL2 is older than 5.10.43.3" 'wsl --update; wsl --shutdown'

system 'WSL 2, a kernel of one'"'"'s own' wsl
kernel 6.12.1-mine
expect 'warn custom-kernel' 'ready for CUDA' 'kernel='

system 'WSL 2, GPU switched off' wsl
file /etc/wsl.conf '[interop]
enabled = true
[gpu]
enabled = false'
gone /dev/dxg /usr/lib/wsl
program ldconfig ''
expect 'FAIL gpu-setting' "$cpu the GPU is switched off in /etc/wsl.conf" '/etc/wsl.conf; then in PowerShell: wsl --shutdown'

system 'WSL 2, no /dev/dxg' wsl
gone /dev/dxg
program /usr/lib/wsl/lib/nvidia-smi 'Failed to initialize NVML' 9
expect 'FAIL dxg' "$cpu WSL shows no GPU (/dev/dxg is missing): an old WSL, a GPU in TCC mode, or a custom kernel" 'wsl --update'

system 'WSL 2, no driver on Windows' wsl
gone /usr/lib/wsl/lib/libcuda.so.1 /usr/lib/wsl/lib/nvidia-smi
program ldconfig ''
registry 0x2 'Microsoft Basic Display Adapter'
expect 'FAIL windows-driver' "$cpu Windows has no NVIDIA driver" 'in Windows (never in WSL)'

system 'WSL 2, driver not in WSL yet' wsl
gone /usr/lib/wsl
program ldconfig ''
expect 'FAIL windows-driver' "$cpu Windows has an NVIDIA driver, but its CUDA library did not come into WSL" 'wsl --shutdown'

system 'WSL 2, libraries missing, interop off' wsl
gone /usr/lib/wsl /proc/sys/fs
program ldconfig ''
expect 'FAIL windows-driver' "$cpu /usr/lib/wsl/lib, where Windows' driver comes into WSL, is empty" 'wsl --update; wsl --shutdown'

system 'WSL 2, AMD GPU' wsl
gone /usr/lib/wsl/lib/libcuda.so.1 /usr/lib/wsl/lib/nvidia-smi
registry 0x2 'AMD Radeon RX 7800 XT'
expect 'FAIL windows-driver' "$cpu Windows knows no NVIDIA GPU, and CUDA needs one"

system 'WSL 2, Linux driver inside' wsl
packages libnvidia-compute-550
loader /usr/lib/x86_64-linux-gnu/libcuda.so.1
expect 'FAIL driver-inside' "$cpu a Linux driver was installed inside WSL (libnvidia-compute-550) and hides Windows' driver" \
    'sudo apt-get purge -y libnvidia-compute-550 && sudo ldconfig'

system 'WSL 2, Linux driver from a .run file' wsl
loader /usr/lib/x86_64-linux-gnu/libcuda.so.1
expect 'FAIL libcuda' "$cpu a Linux driver inside WSL (/usr/lib/x86_64-linux-gnu/libcuda.so.1) hides Windows' driver" nvidia-uninstall

system 'WSL 2, loader without /usr/lib/wsl' wsl
program ldconfig ''
expect 'FAIL libcuda' "$cpu the loader does not look into /usr/lib/wsl/lib" 'ld.wsl.conf && sudo ldconfig'

system 'WSL 2, access blocked' wsl
program /usr/lib/wsl/lib/nvidia-smi 'Failed to initialize NVML: GPU access blocked by the operating system' 17
expect 'FAIL gpu' "$cpu Windows blocks the GPU for WSL: it is in TCC (data centre) mode, WSL is old, or the kernel is your own" 'nvidia-smi -dm 0'

system 'WSL 2, nvidia-smi hangs' wsl
hangs /usr/lib/wsl/lib/nvidia-smi
expect 'FAIL gpu' "$cpu nvidia-smi does not answer within 2 seconds: the driver hangs" 'wsl --shutdown'

system 'WSL 2, no toolkit' wsl
gone /usr/local
expect 'FAIL toolkit' "$cpu the CUDA toolkit (nvcc) is not installed" 'repos/wsl-ubuntu/x86_64' 'install -y cuda-toolkit-13-0'

system 'WSL 2, no toolkit, driver 566' wsl
gone /usr/local
wsl_gpu 'NVIDIA GeForce RTX 3060' 8.6 566.36
expect 'FAIL toolkit' "$cpu the CUDA toolkit (nvcc) is not installed" 'install -y cuda-toolkit-12-9'

system 'WSL 2, driver older than the toolkit' wsl
wsl_gpu 'NVIDIA GeForce RTX 4090' 8.9 551.86
expect 'FAIL toolkit-driver' "$cpu driver 551.86 is older than 580, which toolkit 13.0 needs" 'update the driver in Windows'

system 'WSL 2, RTX 50xx and an old toolkit' wsl
wsl_gpu 'NVIDIA GeForce RTX 5090' 12.0 581.15
toolkit 12.0 15 'sm_80
sm_89
sm_90'
program wsl.exe 'WSL version: 2.7.1.0'
expect 'FAIL architecture' "$cpu toolkit 12.0 is too old for this GPU (sm_120): it needs 12.8 or newer" 'cuda-toolkit-13-0'

system 'a GPU newer than RTX 50xx and their first toolkit' wsl
wsl_gpu 'NVIDIA GB10' 12.1 581.15
toolkit 12.8 14 'sm_90
sm_120'
program wsl.exe 'WSL version: 2.7.1.0'
expect 'FAIL architecture' "$cpu toolkit 12.8 is too old for this GPU (sm_121): it needs 12.9 or newer" 'cuda-toolkit-13-0'

system 'WSL 2, Pascal and a new toolkit' wsl
wsl_gpu 'NVIDIA GeForce GTX 1080' 6.1 580.97
expect 'FAIL architecture' "$cpu toolkit 13.0 has no code for this GPU (sm_61)" 'cuda-toolkit-12-9'

system 'WSL 2, RTX 50xx and an old WSL' wsl
wsl_gpu 'NVIDIA GeForce RTX 5090' 12.0 581.15
expect 'warn graphs' 'ready for CUDA' '2.6.3.0 fails to capture CUDA graphs' 'wsl --update' '--graph off'

system 'WSL 2, gcc too new' wsl
program g++ 16
expect 'FAIL compiler' "$cpu gcc 16 is newer than nvcc 13.0 accepts (15)" "-ccbin g++-15"

system 'WSL 2, data on a Windows drive' wsl
directory=/mnt/c/Users/me/nn.c
expect 'warn files' 'ready for CUDA' "cp -r '/mnt/c/Users/me/nn.c' ~/"

system 'WSL 2, data linked to a Windows drive' wsl
missing=1 directory=/home/me/data
expect 'warn files' 'ready for CUDA' '/home/me/data does not exist'
missing=''
mkdir -p "$here/home/me"
ln -s "$here/mnt/c/pictures" "$here/home/me/data"
file /mnt/c/pictures/1.png ''
expect 'warn files' 'ready for CUDA' "/mnt/c/pictures is on a Windows drive (9p)"

system 'WSL 2, little memory' wsl
memory 3000000
expect 'warn memory' 'ready for CUDA' .wslconfig

system 'WSL 2, interop off' wsl
gone /proc/sys/fs
hangs /bin/reg.exe
expect '' 'ready for CUDA' 'interop is off'

system 'WSL 2, slow Windows settings' wsl
registry 0x1 'NVIDIA
    TdrDelay    REG_DWORD    0x1'
program powercfg.exe 'GUID du mode: a1841308-3541-4fab-bc81-f71556f20b4a'
file /sys/devices/system/clocksource/clocksource0/current_clocksource hyperv_clocksource_msr
expect 'warn gpu-scheduling, warn gpu-timeout, warn power, warn clock' 'ready for CUDA' 'HwSchMode /t REG_DWORD /d 2'

system 'WSL 2, GPU memory ran out' wsl
program dmesg 'misc dxg: dxgk: dxgkio_query_adapter_info: Ioctl failed: -22
misc dxg: dxgk: dxgkio_make_resident: Ioctl failed: -12'
expect 'warn gpu-memory' 'ready for CUDA' --batch-size

# trainer OUTPUT [STATUS]: nn.c is built
trainer() { program "$PWD/train_mlp" "$@"; }

system 'WSL 2, nn.c built and working' wsl
trainer ''
expect '' 'ready for CUDA' 'trained a step on this GPU'

system 'WSL 2, CUDA fails behind nvidia-smi' wsl
trainer 'error: cudaSetDevice: CUDA error 999 (cudaErrorUnknown): unknown error; under WSL run `wsl --shutdown` in Windows; CUDA driver 13000' 5
expect 'FAIL cuda' "$cpu cudaSetDevice: CUDA error 999 (cudaErrorUnknown): unknown error" 'fix: under WSL run `wsl --shutdown` in Windows'

system 'native, CUDA fails behind nvidia-smi' native
trainer 'error: cudaMalloc: CUDA error 1 (cudaErrorInvalidValue): invalid argument; CUDA driver 13000' 5
expect 'FAIL cuda' "$cpu cudaMalloc: CUDA error 1 (cudaErrorInvalidValue): invalid argument" 'fix: sudo reboot'

system 'WSL 2, nn.c built without CUDA' wsl
trainer 'error: this build has no CUDA backend: install the CUDA toolkit' 5
expect 'FAIL cuda' "$cpu nn.c was built without CUDA" 'make clean && make'

system 'WSL 2, the first step hangs' wsl
hangs "$PWD/train_mlp"
expect 'warn cuda' 'ready for CUDA' './train_mlp --device cuda --steps 1'

system 'WSL 2, Docker without CDI' wsl
program docker ''
program nvidia-ctk ''
expect 'warn docker' 'ready for CUDA' 'nvidia-ctk cdi generate --mode=wsl --output=/etc/cdi/nvidia.yaml'

system 'healthy container in WSL 2' wsl_container
expect '' 'ready for CUDA' 'a container in WSL 2'

system 'container in WSL 2, without the toolkit' wsl_container
gone /dev/dxg /usr/lib/wsl
program ldconfig ''
expect 'FAIL container' "$cpu this container was started without the GPU" 'nvidia-ctk runtime configure'

system 'container in WSL 2, CDI missing' wsl_container
gone /usr/lib/wsl
program ldconfig ''
expect 'FAIL container' "$cpu /dev/dxg is in this container but the driver is not: no CDI description for WSL" 'cdi generate --mode=wsl'

system 'container in WSL 2, driver in the image' wsl_container
packages libnvidia-compute-535
program /usr/lib/wsl/lib/nvidia-smi 'Failed to initialize NVML: Driver Not Loaded' 9
expect 'FAIL driver-inside' "$cpu a driver is baked into the image (libnvidia-compute-535) and hides the host's" 'apt-get purge -y libnvidia-compute-535'

system 'healthy native Linux' native
expect '' 'ready for CUDA' 'native Linux: Ubuntu' 'version 580.65.06'

system 'native, nouveau' native
no_driver
file /proc/modules 'nouveau 2000000 1 - Live 0x0'
expect 'FAIL nouveau' "$cpu the nouveau driver has the GPU, and it has no CUDA" 'ubuntu-drivers install'

system 'native, nouveau before the driver' native
no_driver installed
file /proc/modules 'nouveau 2000000 1 - Live 0x0'
expect 'FAIL nouveau' "$cpu the nouveau driver took the GPU before NVIDIA's" 'blacklist nouveau\noptions'

system 'native, no driver' native
no_driver
expect 'FAIL module' "$cpu no NVIDIA driver is installed" 'sudo ubuntu-drivers install && sudo reboot'

system 'native, Secure Boot' native
no_driver installed
program mokutil 'SecureBoot enabled'
expect 'FAIL secure-boot' "$cpu Secure Boot refuses the driver's module, which no enrolled key has signed" 'mokutil --import'

system 'native, module not loaded' native
no_driver installed
program mokutil 'SecureBoot disabled'
expect 'FAIL module' "$cpu the NVIDIA driver is installed but not loaded" 'sudo modprobe nvidia'

system 'native, versions differ' native
file /proc/driver/nvidia/version 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Release Build'
program nvidia-smi 'Failed to initialize NVML: Driver/library version mismatch' 18
expect 'FAIL driver-version' "$cpu the kernel runs driver 570.86.10 but the libraries are 580.65.06: updated without a restart" 'sudo reboot'

system 'native, no libcuda' native
program ldconfig ''
expect 'FAIL libcuda' "$cpu the driver's library libcuda.so.1 is missing" 'libnvidia-compute-580'

system 'native, no /dev/nvidia-uvm' native
gone /dev/nvidia-uvm
expect 'FAIL devices' "$cpu /dev/nvidia-uvm is missing" 'sudo nvidia-modprobe -u -c 0'

system 'native, /dev/nvidia-uvm not made yet' native
gone /dev/nvidia-uvm
program nvidia-modprobe ''
chmod u+s "$here/bin/nvidia-modprobe"
expect 'warn devices' 'ready for CUDA' 'the first CUDA program makes it'

system 'native, library for an older driver' native
loader /usr/local/cuda/compat/libcuda.so.1
file /sys/devices/system/cpu/cpu0/cpufreq/scaling_driver acpi-cpufreq
file /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor powersave
expect 'warn governor' 'ready for CUDA' 'for an older driver'

system 'native, /dev/nvidia* closed' native
program id 54321
chmod 660 "$here"/dev/nvidia*
expect 'FAIL devices' "$cpu this user may not use /dev/nvidiactl /dev/nvidia0 /dev/nvidia-uvm" 'sudo chmod a+rw /dev/nvidiactl'

system 'native, CUDA_VISIBLE_DEVICES empty' native CUDA_VISIBLE_DEVICES=
expect 'FAIL visible-devices' "$cpu CUDA_VISIBLE_DEVICES='' hides every GPU" 'unset CUDA_VISIBLE_DEVICES'

system 'native, stub of the driver' native LD_LIBRARY_PATH=/usr/local/cuda/lib64/stubs
expect 'FAIL library-path' "$cpu LD_LIBRARY_PATH leads to the toolkit's stub of the driver" 'unset LD_LIBRARY_PATH'

system 'native, no GPU' native
gone /sys/bus
no_driver
expect 'FAIL pci' "$cpu this machine has no NVIDIA GPU" '--device cpu'

system 'native, AMD GPU' native
no_driver
pci 0x1002
expect 'FAIL pci' "$cpu the only GPU is from AMD, and CUDA needs one from NVIDIA"

system 'native, no compiler' native
gone /bin/g++
expect 'FAIL compiler' "$cpu g++, which nvcc needs, is not installed" 'install -y g++'

system 'native, Docker without the toolkit' native
program docker ''
expect 'warn docker' 'ready for CUDA' 'nvidia-container-toolkit'

system 'healthy container' native_container
expect '' 'ready for CUDA' 'a container in native Linux'

system 'container with programs alone' native_container
gone /usr/local /bin/g++
trainer ''
expect '' 'ready for CUDA' 'not installed; nn.c is built already'

system 'a step was trained whatever it looks like' native_container
gone /dev/nvidia-uvm
trainer ''
expect 'warn devices' 'ready for CUDA' 'trained a step'

system 'container without the GPU' native_container
no_driver
expect 'FAIL container' "$cpu this container was started without the GPU" 'docker run --gpus all'

# --- JSON, options, time

valid_json() {
    python3 - "$work"/system*.json <<'END'
import json, sys
for path in sys.argv[1:]:
    found = json.load(open(path))
    verdict = open(path[:-4] + "verdict").read()
    failed = [c for c in found["checks"] if c["status"] == "fail"]
    assert found["verdict"] == verdict, path
    assert found["cuda"] == (verdict == "ready for CUDA") == (not failed), path
    assert all(c["status"] in ("ok", "warn", "fail") for c in found["checks"]), path
    assert all(c["fix"] for c in found["checks"] if c["status"] != "ok"), path
END
}
if command -v python3 >/dev/null; then
    ok "JSON of $systems systems is valid and agrees" valid_json
else
    skip "JSON" "no python3"
fi
system 'several folders' wsl
mkdir -p "$here/home/me/runs"
several() {
    directory=/mnt/c/data run "$here.sh" sh "$doctor" /home/me/runs && cat "$here.sh" &&
        [ "$(grep -cE '^  (ok|warn)  *files .*/(mnt/c/data|home/me/runs) is on' "$here.sh")" = 2 ]
}
ok "several folders" several
ok "--help" sh "$doctor" --help
fails "an unknown option" 2 "--jsn" sh "$doctor" --jsn
hangs_everywhere() {
    local began=$EPOCHREALTIME command
    for command in /usr/lib/wsl/lib/nvidia-smi /usr/local/cuda/bin/nvcc /bin/{g++,ldconfig,dpkg-query,dmesg,wsl.exe,reg.exe,powercfg.exe}; do
        hangs "$command"
        sed -i "2itrap '' TERM" "$here$command"
    done
    run "$here.sh" sh "$doctor"
    [ "$(cat "$here.sh.status")" = 1 ] && at_least 3 "$EPOCHREALTIME - $began"
}
system 'every command hangs' wsl
ok 'under 3 seconds when every command hangs' hangs_everywhere
if command -v shellcheck >/dev/null; then
    ok "shellcheck" shellcheck "$doctor"
else
    skip "shellcheck" "it is not installed"
fi
finish
