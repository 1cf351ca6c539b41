#!/bin/sh
# Says whether this system can train with CUDA, and if not, why and what to type; see --help.
#
# Files are read below NN_DOCTOR_ROOT (empty: this system) and commands are taken from PATH, so that
# tests can present a system that is not there. Slow commands run side by side, each under a time
# limit, and are left behind when even a kill does not end them (a hung driver).
set -u

usage() {
    cat <<'EOF'
Usage: scripts/doctor.sh [--json] [DIR...]

Looks at what training with CUDA needs: platform (WSL 2, WSL 1, native Linux, a container in
either), driver, devices, toolkit, compiler, memory, and the file system of each DIR, where data and
runs are (default: the folder of nn.c). Where nn.c is built, it trains one step with CUDA. Each check is
  ok     fine
  warn   slower or fragile, but CUDA works
  FAIL   CUDA cannot work
with the cause and the command that fixes it. The last line is the verdict.

  --json   the same as one JSON object

Exit status: 0 ready for CUDA; 1 CPU only; 2 a wrong option, or no
room for temporary files. Changes nothing, needs no root, takes under 3 seconds.
EOF
}

root=${NN_DOCTOR_ROOT-}
tree=$(cd "$(dirname "$0")/.." && pwd) || exit 1
tab=$(printf '\t')
newline='
'
records='' # lines of status, name, text, fix, separated by tabs
reason=''  # the text of the first FAIL

# check STATUS NAME TEXT [FIX]: one result. Checks go from cause to effect, so that the first FAIL
# is the reason of the verdict; its text completes "CPU only, because". Nothing is a FAIL where a
# step was trained with CUDA.
check() {
    result=$1
    if [ "$result" = FAIL ] && [ "$(status_of cuda)" = 0 ]; then result=warn; fi
    if [ "$result" = FAIL ] && [ -z "$reason" ]; then reason=$3; fi
    records="$records$result$tab$2$tab$3$tab${4-}$newline"
}

# older A B: is version A before version B?
older() {
    left=$1. right=$2.
    while [ -n "$left$right" ]; do
        a=${left%%.*} b=${right%%.*}
        left=${left#*.} right=${right#*.}
        a=${a%%[!0-9]*} b=${b%%[!0-9]*}
        if [ "${a:-0}" -ne "${b:-0}" ]; then
            [ "${a:-0}" -lt "${b:-0}" ]
            return
        fi
    done
    return 1
}

first_line() { # first_line FILE
    line=''
    [ ! -r "$root$1" ] || IFS= read -r line <"$root$1" || :
    printf '%s' "$line"
}

# find_command NAME DIR...: its path, from PATH or else from those directories of the system.
find_command() {
    command -v "$1" && return
    wanted=$1
    shift
    for dir; do
        if [ -x "$root$dir/$wanted" ]; then
            printf '%s\n' "$root$dir/$wanted"
            return
        fi
    done
    return 1
}

# --- probes: commands that may be slow or hang

answers=$(mktemp -d) || exit 2
trap 'rm -rf "$answers"' EXIT
trap 'exit 130' INT TERM HUP
pending=''

# probe NAME COMMAND...: starts it, at most 2 seconds long. collect waits for all of them.
probe() {
    name=$1
    shift
    pending="$pending $name"
    (
        timeout -k 0.3 2 "$@"
        echo $? >"$answers/$name.status"
    ) </dev/null >"$answers/$name" 2>&1 &
}

collect() {
    ticks=0
    for name in $pending; do
        while [ ! -s "$answers/$name.status" ] && [ $ticks -lt 45 ]; do
            sleep 0.05
            ticks=$((ticks + 1))
        done
    done
}

# answer NAME SED-OPTIONS...: what the command said, through sed; says NAME REGEX: did it say that?
answer() {
    name=$1
    shift
    [ ! -f "$answers/$name" ] || sed "$@" "$answers/$name"
}
says() { [ -f "$answers/$1" ] && grep -qE "$2" "$answers/$1"; }

# status_of NAME: the exit status of its command; 127 without the command, 124 past the limit.
status_of() {
    [ -f "$answers/$1" ] || { echo 127 && return; }
    status=124
    [ ! -s "$answers/$1.status" ] || read -r status <"$answers/$1.status"
    [ "$status" != 137 ] || status=124
    echo "$status"
}

start_probes() {
    gpu_query='--query-gpu=name,compute_cap,driver_version,memory.total'
    # In WSL the driver's own nvidia-smi is not on every PATH.
    if [ -x "$root/usr/lib/wsl/lib/nvidia-smi" ]; then
        smi=$root/usr/lib/wsl/lib/nvidia-smi
    else
        smi=$(command -v nvidia-smi) || smi=''
    fi
    [ -z "$smi" ] || probe smi "$smi" "$gpu_query" --format=csv,noheader,nounits
    nvcc=$(find_command nvcc /usr/local/cuda/bin) || nvcc=''
    if [ -n "$nvcc" ]; then
        probe nvcc "$nvcc" --version
        probe codes "$nvcc" --list-gpu-code
    fi
    ! command -v g++ >/dev/null || probe gcc g++ -dumpversion
    ! ldconfig=$(find_command ldconfig /sbin /usr/sbin) || probe ldconfig "$ldconfig" -p
    # shellcheck disable=SC2016 # dpkg-query fills these in
    ! command -v dpkg-query >/dev/null ||
        probe dpkg dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' \
            'nvidia-driver*' 'libnvidia-compute-*' 'cuda-drivers*' libcuda1
    # What nvidia-smi says may be fine while CUDA fails.
    [ ! -x "$root$tree/train_mlp" ] ||
        probe cuda "$root$tree/train_mlp" --device cuda --steps 1 --hidden 8 --batch-size 16 --quiet --out "$answers/run"
    case $platform in
    wsl2) start_windows_probes ;;
    native)
        ! command -v mokutil >/dev/null || probe secure_boot mokutil --sb-state
        ! modinfo=$(find_command modinfo /sbin /usr/sbin) || probe modinfo "$modinfo" -n nvidia
        ;;
    esac
}

# Windows' own commands; only where WSL may start them.
start_windows_probes() {
    ! command -v dmesg >/dev/null || probe dmesg dmesg
    windows=''
    [ -e "$root/proc/sys/fs/binfmt_misc/WSLInterop" ] ||
        [ -e "$root/proc/sys/fs/binfmt_misc/WSLInterop-late" ] || return 0
    windows=yes
    system32=/mnt/c/Windows/System32
    control='HKLM\SYSTEM\CurrentControlSet\Control'
    adapters='{4d36e968-e325-11ce-bfc1-08002be10318}'
    ! wsl=$(find_command wsl.exe $system32) ||
        probe wsl env WSL_UTF8=1 WSLENV=WSL_UTF8 "$wsl" --version
    ! powercfg=$(find_command powercfg.exe $system32) || probe power "$powercfg" /getactivescheme
    ! reg=$(find_command reg.exe $system32) || {
        probe drivers "$reg" query "$control\\GraphicsDrivers"
        probe adapters "$reg" query "$control\\Class\\$adapters" /s /v DriverDesc
    }
}

# --- platform

detect() {
    kernel=$(first_line /proc/sys/kernel/osrelease)
    case "$(first_line /proc/version) $kernel" in
    *microsoft-standard*) platform=wsl2 ;;
    *Microsoft*) platform=wsl1 ;;
    *)
        platform=native
        # A kernel of one's own does not have Microsoft's name.
        if [ -e "$root/dev/dxg" ] || [ -e "$root/run/WSL" ]; then platform=wsl2; fi
        ;;
    esac
    container=''
    if [ -e "$root/.dockerenv" ] || [ -e "$root/run/.containerenv" ] ||
        grep -qE 'docker|kubepods|containerd|libpod|lxc' "$root/proc/1/cgroup" 2>/dev/null; then
        container=yes
    fi
    system='' release='' # release: such as ubuntu24.04, debian12
    [ ! -r "$root/etc/os-release" ] || while IFS='=' read -r key value; do
        value=${value#\"}
        value=${value%\"}
        case $key in
        PRETTY_NAME) system=$value ;;
        ID) release=$value$release ;;
        VERSION_ID) release=$release$value ;;
        esac
    done <"$root/etc/os-release"
}

# setting SECTION KEY: its value in /etc/wsl.conf
setting() {
    [ ! -r "$root/etc/wsl.conf" ] || tr -d ' \t\r' <"$root/etc/wsl.conf" |
        awk -F= -v section="[$1]" -v key="$2" \
            '/^\[/ {here = tolower($0) == section}
             here && tolower($1) == key {value = tolower($2)}
             END {print value}'
}

restart_wsl='in PowerShell: wsl --update; wsl --shutdown'
run_container='docker run --gpus all'
configure_docker='sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker'
toolkit_pages=https://nvidia.github.io/libnvidia-container
toolkit_key=/etc/apt/keyrings/nvidia-container-toolkit.asc
container_toolkit="sudo curl -fsSL $toolkit_pages/gpgkey -o $toolkit_key && echo 'deb [signed-by=$toolkit_key] $toolkit_pages/stable/deb/amd64 /' | sudo tee /etc/apt/sources.list.d/nvidia-container-toolkit.list && sudo apt-get update && sudo apt-get install -y nvidia-container-toolkit && $configure_docker"
restart='sudo reboot' # of the driver's kernel side
no_fix='none needed to train on the CPU: ./train_cnn --device cpu'

check_wsl1() {
    check FAIL platform "this is WSL 1, which has no GPU" \
        "in PowerShell: wsl --set-version ${WSL_DISTRO_NAME:-<name from 'wsl -l -v'>} 2"
}

check_wsl2() {
    if older "$kernel" 5.10.43.3; then
        check FAIL kernel "the WSL kernel $kernel is older than 5.10.43.3" "$restart_wsl"
    else
        check ok kernel "$kernel; CUDA needs 5.10.43.3 or newer"
    fi
    case $kernel in *microsoft*) ;; *) check warn custom-kernel "a kernel of your own runs WSL" \
        "if the GPU is missing: delete the line kernel= in %UserProfile%\\.wslconfig, then in PowerShell: wsl --shutdown" ;; esac
    if [ "$(setting gpu enabled)" = false ]; then
        check FAIL gpu-setting "the GPU is switched off in /etc/wsl.conf" \
            "sudo sed -i '/^\\[gpu\\]/,/^\\[/s/^enabled.*/enabled=true/' /etc/wsl.conf; then in PowerShell: wsl --shutdown"
        return
    fi
    if [ ! -e "$root/dev/dxg" ]; then
        if [ -n "$container" ]; then
            check_container_without_gpu
        else
            check FAIL dxg "WSL shows no GPU (/dev/dxg is missing): an old WSL, a GPU in TCC mode, or a custom kernel" \
                "$restart_wsl; if it stays, as administrator: nvidia-smi -dm 0"
        fi
        return
    fi
    check ok dxg "/dev/dxg is there"
    if [ -n "$container" ]; then check_wsl_container; else check_windows_driver; fi
}

check_windows_driver() {
    wsl_lib=$root/usr/lib/wsl/lib
    if [ -e "$wsl_lib/libcuda.so.1" ] && [ -e "$wsl_lib/libdxcore.so" ]; then
        check ok windows-driver "Windows' NVIDIA driver is in /usr/lib/wsl/lib"
        return
    fi
    case $(answer adapters '') in
    *NVIDIA*)
        check FAIL windows-driver "Windows has an NVIDIA driver, but its CUDA library did not come into WSL" \
            "$restart_wsl"
        ;;
    *AMD* | *Radeon* | *Intel*)
        nvidia=''
        check FAIL windows-driver "Windows knows no NVIDIA GPU, and CUDA needs one" \
            "none for another GPU; for an NVIDIA one, install https://www.nvidia.com/drivers in Windows, then in PowerShell: wsl --shutdown"
        ;;
    *)
        if [ ! -e "$wsl_lib/libd3d12.so" ]; then
            check FAIL windows-driver "/usr/lib/wsl/lib, where Windows' driver comes into WSL, is empty" "$restart_wsl"
            return
        fi
        check FAIL windows-driver "Windows has no NVIDIA driver" \
            "install https://www.nvidia.com/drivers in Windows (never in WSL), then in PowerShell: wsl --shutdown"
        ;;
    esac
}

check_container_without_gpu() {
    check FAIL container "this container was started without the GPU" \
        "on the host: $container_toolkit; then $run_container ..."
}

check_wsl_container() {
    if [ "$(status_of ldconfig)" = 0 ] && ! says ldconfig 'libcuda\.so\.1 ' &&
        [ ! -e "$root/usr/lib/wsl/lib/libcuda.so.1" ]; then
        check FAIL container "/dev/dxg is in this container but the driver is not: no CDI description for WSL" \
            "in WSL, outside: sudo nvidia-ctk cdi generate --mode=wsl --output=/etc/cdi/nvidia.yaml; then $run_container ..."
    else
        check ok container "the container has the GPU"
    fi
}

# Packages of a Linux driver, on one line.
driver_packages() { answer dpkg -n 's/^ii *//p' | tr '\n' ' ' | sed 's/ $//'; }

# In WSL and in a container the driver comes from outside; one installed inside hides it.
check_driver_inside() {
    packages=$(driver_packages)
    [ -n "$packages" ] || return 0
    if [ -n "$container" ]; then
        state=FAIL
        [ "$(status_of smi)" != 0 ] || state=warn
        check $state driver-inside "a driver is baked into the image ($packages) and hides the host's" \
            "in the Dockerfile: RUN apt-get purge -y $packages; or start FROM an nvidia/cuda devel image"
    else
        check FAIL driver-inside "a Linux driver was installed inside WSL ($packages) and hides Windows' driver" \
            "sudo apt-get purge -y $packages && sudo ldconfig; then in PowerShell: wsl --shutdown"
    fi
}

# Which libcuda.so.1 the loader takes.
check_libcuda() {
    [ "$(status_of ldconfig)" = 0 ] || return 0
    libcuda=$(answer ldconfig -n '/.*libcuda\.so\.1 .*x86-64.*=> /{s///p;q;}')
    case $platform$container:$libcuda in
    wsl2:/usr/lib/wsl/*) check ok libcuda "$libcuda" ;;
    wsl2:)
        case :${LD_LIBRARY_PATH-}: in *:/usr/lib/wsl/lib:*) return ;; esac
        check FAIL libcuda "the loader does not look into /usr/lib/wsl/lib" \
            "echo /usr/lib/wsl/lib | sudo tee /etc/ld.so.conf.d/ld.wsl.conf && sudo ldconfig"
        ;;
    wsl2:*)
        check FAIL libcuda "a Linux driver inside WSL ($libcuda) hides Windows' driver" \
            "sudo apt-get purge -y 'nvidia-driver-*' 'libnvidia-compute-*' 'cuda-drivers*' && sudo ldconfig; if installed from a .run file: sudo nvidia-uninstall"
        ;;
    native:)
        check FAIL libcuda "the driver's library libcuda.so.1 is missing" \
            "sudo apt-get install -y libnvidia-compute-${module%%.*} || sudo apt-get install -y libcuda1"
        ;;
    native:*/compat/*) check ok libcuda "$libcuda, for an older driver" ;;
    native:*) check_versions ;;
    esac
}

# The kernel's module and the library must be of one version.
check_versions() {
    library=$(readlink -f "$root$libcuda")
    library=${library##*libcuda.so.}
    case $library in
    *.*) ;;
    *) return ;;
    esac
    if [ -n "$module" ] && [ "$module" != "$library" ]; then
        check FAIL driver-version "the kernel runs driver $module but the libraries are $library: updated without a restart" \
            "sudo reboot"
    else
        check ok libcuda "$libcuda, version $library"
    fi
}

# --- native Linux

# Sets nvidia and others (names of other makers' GPUs) from the PCI bus.
find_gpus() {
    nvidia='' others=''
    for device in "$root"/sys/bus/pci/devices/*; do
        [ -r "$device/class" ] || continue
        read -r class <"$device/class"
        read -r vendor <"$device/vendor"
        case $class:$vendor in
        0x03*:0x10de) nvidia=yes ;;
        0x03*:0x1002) others="${others:+$others and }AMD" ;;
        0x03*:0x8086) others="${others:+$others and }Intel" ;;
        esac
    done
    # A sandbox may hide the bus.
    if [ -e "$root/dev/nvidia0" ]; then nvidia=yes; fi
}

check_native() {
    find_gpus
    if [ -z "$nvidia" ]; then
        if [ -n "$others" ]; then
            check FAIL pci "the only GPU is from $others, and CUDA needs one from NVIDIA" "$no_fix"
        else
            check FAIL pci "this machine has no NVIDIA GPU" "$no_fix"
        fi
        return
    fi
    check ok pci "an NVIDIA GPU is on the PCI bus"
    if [ -n "$container" ]; then
        if [ ! -e "$root/dev/nvidiactl" ]; then
            check_container_without_gpu
        else
            check ok container "the container has the GPU"
            check_devices
        fi
    else
        check_module
        [ -z "$module" ] || check_devices
    fi
}

install_driver() {
    case $release in
    ubuntu*) echo 'sudo ubuntu-drivers install && sudo reboot' ;;
    debian*) echo 'sudo apt-get install -y nvidia-driver && sudo reboot' ;;
    *) echo 'install https://www.nvidia.com/drivers, then sudo reboot' ;;
    esac
}

# Sets module, the version of the loaded driver.
check_module() {
    module=$(sed -nE '1s/.* ([0-9]+\.[0-9.]+) .*/\1/p' "$root/proc/driver/nvidia/version" 2>/dev/null)
    if [ -n "$module" ]; then
        check ok module "driver $module is loaded"
    elif [ "$(status_of modinfo)" != 0 ]; then
        if grep -q '^nouveau ' "$root/proc/modules" 2>/dev/null; then
            check FAIL nouveau "the nouveau driver has the GPU, and it has no CUDA" "$(install_driver)"
        else
            check FAIL module "no NVIDIA driver is installed" "$(install_driver)"
        fi
    elif grep -q '^nouveau ' "$root/proc/modules" 2>/dev/null; then
        check FAIL nouveau "the nouveau driver took the GPU before NVIDIA's" \
            "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee /etc/modprobe.d/nouveau.conf && sudo update-initramfs -u && sudo reboot"
    elif says secure_boot 'SecureBoot enabled'; then
        check FAIL secure-boot "Secure Boot refuses the driver's module, which no enrolled key has signed" \
            "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der && sudo reboot (Debian: /var/lib/dkms/mok.pub), and choose Enroll MOK at the start"
    else
        check FAIL module "the NVIDIA driver is installed but not loaded" "sudo modprobe nvidia"
    fi
}

# usable FILE: may this user read and write it? From its mode, as root may whatever it says.
usable() {
    user=$(id -u)
    [ "$user" != 0 ] || return 0
    stat -c '%a %u %g' "$1" | {
        read -r mode owner group
        mode=00$mode
        case $mode in *[67]) exit 0 ;; esac
        mode=${mode%?}
        case $mode in *[67]) case " $(id -G) " in *" $group "*) exit 0 ;; esac ;; esac
        mode=${mode%?}
        case $mode in *[67]) [ "$owner" = "$user" ] && exit 0 ;; esac
        exit 1
    }
}

check_devices() {
    closed=''
    for device in nvidiactl nvidia0 nvidia-uvm; do
        if [ ! -e "$root/dev/$device" ]; then
            check_missing_device $device
        elif ! usable "$root/dev/$device"; then
            closed="$closed /dev/$device"
        fi
    done
    [ -z "$closed" ] || check FAIL devices "this user may not use$closed" \
        "sudo chmod a+rw$closed; to keep it: NVreg_DeviceFileMode=0666 in /etc/modprobe.d/nvidia.conf"
}

check_missing_device() {
    text="/dev/$1 is missing"
    make_devices='sudo nvidia-modprobe -u -c 0'
    if [ -n "$container" ]; then
        case $1 in nvidia0) return ;; esac # a container may have another GPU of the host
        check FAIL devices "$text in this container" "on the host: $make_devices; then $run_container ..."
    elif modprobe=$(find_command nvidia-modprobe /usr/bin) && [ -u "$modprobe" ]; then
        check warn devices "$text; the first CUDA program makes it" "$make_devices"
    else
        check FAIL devices "$text" "sudo apt-get install -y nvidia-modprobe && $make_devices"
    fi
}

# --- the GPU, as nvidia-smi sees it

# Sets capability (such as 8.9) and driver, where it answers.
check_gpu() {
    capability='' driver=''
    smi_status=$(status_of smi)
    said=$(answer smi -n '/[^ ]/{s/[^[:print:]]//g;p;q;}')
    case $smi_status:$said in
    0:*,*,*,*)
        count=$(grep -c , "$answers/smi")
        IFS=, read -r gpu capability driver memory <<EOF
$said
EOF
        capability=${capability# } driver=${driver# } memory=${memory# }
        case $capability in [0-9]*) ;; *) capability='' ;; esac
        check ok gpu "$gpu, compute capability ${capability:-unknown}, ${memory} MiB, driver $driver$([ "$count" = 1 ] || echo ", $count GPUs")"
        ;;
    *) check_silent_gpu ;;
    esac
}

check_silent_gpu() {
    # What is wrong below it was said already.
    [ -z "$reason" ] || return 0
    case $smi_status:$said in
    127:*) check warn gpu "nvidia-smi is missing: the GPU could not be asked" \
        "in a container: -e NVIDIA_DRIVER_CAPABILITIES=compute,utility; else install the driver's nvidia-utils" ;;
    124:*) check FAIL gpu "nvidia-smi does not answer within 2 seconds: the driver hangs" \
        "run this again; if it stays, $restart" ;;
    *blocked\ by\ the\ operating*) check FAIL gpu \
        "Windows blocks the GPU for WSL: it is in TCC (data centre) mode, WSL is old, or the kernel is your own" \
        "in PowerShell as administrator: nvidia-smi -dm 0; wsl --update; wsl --shutdown; then restart Windows" ;;
    *version\ mismatch*) check FAIL gpu "the driver's module and libraries are of two versions: updated without a restart" \
        "$restart" ;;
    *not\ a\ valid\ field*) check FAIL gpu "the driver is too old to tell the GPU's architecture" \
        "install https://www.nvidia.com/drivers$([ $platform != wsl2 ] || echo " in Windows")" ;;
    *[Nn]o\ devices*) check FAIL gpu "the driver finds no GPU it can use" "$restart" ;;
    *) check FAIL gpu "nvidia-smi says: ${said:-nothing}" "$restart" ;;
    esac
}

check_environment() {
    case ${CUDA_VISIBLE_DEVICES-0} in
    '' | -*) check FAIL visible-devices "CUDA_VISIBLE_DEVICES='${CUDA_VISIBLE_DEVICES-}' hides every GPU" \
        "unset CUDA_VISIBLE_DEVICES" ;;
    esac
    case ${LD_LIBRARY_PATH-} in
    */stubs*) check FAIL library-path "LD_LIBRARY_PATH leads to the toolkit's stub of the driver" \
        "unset LD_LIBRARY_PATH" ;;
    esac
}

# --- toolkit

# The command that installs toolkit $1, such as 13-0.
install_toolkit() {
    repository=$(echo "$release" | tr -d .) # such as ubuntu2404
    [ $platform != wsl2 ] || repository='wsl-ubuntu'
    case $container:$repository in
    yes:*) printf '%s' "start from an image with the toolkit: $run_container nvidia/cuda:${1%-*}.${1#*-}.1-devel-ubuntu24.04" ;;
    *:wsl-ubuntu | *:ubuntu* | *:debian*) printf '%s' \
        "wget https://developer.download.nvidia.com/compute/cuda/repos/$repository/x86_64/cuda-keyring_1.1-1_all.deb && sudo dpkg -i cuda-keyring_1.1-1_all.deb && sudo apt-get update && sudo apt-get install -y cuda-toolkit-$1" ;;
    *) printf '%s' "install only the toolkit from https://developer.nvidia.com/cuda-downloads" ;;
    esac
}

# 13.x needs driver 580 and has no code for Pascal and Volta.
best_toolkit() {
    if { [ -n "$driver" ] && older "$driver" 580; } ||
        { [ -n "$capability" ] && older "$capability" 7.5; }; then echo 12-9; else echo 13-0; fi
}

check_toolkit() {
    best=$(best_toolkit)
    if [ -z "$nvcc" ] && [ "$(status_of cuda)" = 0 ]; then
        check ok toolkit "not installed; nn.c is built already"
        return
    elif [ -z "$nvcc" ]; then
        check FAIL toolkit "the CUDA toolkit (nvcc) is not installed" "$(install_toolkit "$best")"
        return
    fi
    toolkit=$(answer nvcc -nE 's/.*release ([0-9.]+),.*/\1/p')
    if [ -z "$toolkit" ]; then
        check FAIL toolkit "$nvcc does not tell its version" "$(install_toolkit "$best")"
        return
    fi
    check_architecture
    check_toolkit_driver
    check_compiler
}

check_toolkit_driver() {
    needed=525
    older "$toolkit" 13 || needed=580
    older "$toolkit" 12 && needed=450
    if [ -n "$driver" ] && older "$driver" $needed; then
        check FAIL toolkit-driver "driver $driver is older than $needed, which toolkit $toolkit needs" \
            "update the driver$([ $platform != wsl2 ] || echo " in Windows") from https://www.nvidia.com/drivers, or: $(install_toolkit "$best")"
    fi
}

check_architecture() {
    architecture=sm_${capability%.*}${capability#*.}
    first=12.8 # toolkit with code for 12.0
    older "$capability" 12.1 || first=12.9
    if [ -z "$capability" ] || ! says codes '^sm_'; then
        check ok toolkit "$toolkit ($nvcc)"
    elif says codes "^$architecture\$"; then
        check ok toolkit "$toolkit ($nvcc) has code for $architecture"
    elif older "$toolkit" $first && ! older "$capability" 12; then
        check FAIL architecture "toolkit $toolkit is too old for this GPU ($architecture): it needs $first or newer" \
            "$(install_toolkit "$best")"
    else
        check FAIL architecture "toolkit $toolkit has no code for this GPU ($architecture)" \
            "$(install_toolkit "$best")"
    fi
}

# nvcc's own limit is in its host_config.h.
check_compiler() {
    gcc=$(answer gcc 's/\..*//;q')
    if [ -z "$gcc" ]; then
        check FAIL compiler "g++, which nvcc needs, is not installed" "sudo apt-get install -y g++"
        return
    fi
    case ${NVCC_CCBIN-}${NVCC_PREPEND_FLAGS-} in ?*) return ;; esac
    top=$(readlink -f "$nvcc")
    limit=$(sed -nE 's/^#if.*__GNUC__ > ([0-9]+).*/\1/p' "${top%/bin/*}/include/crt/host_config.h" \
        "$root/usr/include/crt/host_config.h" 2>/dev/null | sed 1q)
    if [ -n "$limit" ] && [ "$gcc" -gt "$limit" ]; then
        check FAIL compiler "gcc $gcc is newer than nvcc $toolkit accepts ($limit)" \
            "sudo apt-get install -y g++-$limit && export NVCC_PREPEND_FLAGS='-ccbin g++-$limit'"
    else
        check ok compiler "gcc $gcc${limit:+; nvcc accepts up to $limit}"
    fi
}

# One step of training, where nn.c is built. kernels/cuda/error.cu words its error as
# "where: CUDA error N (name): meaning; what to do; CUDA driver N".
check_cuda() {
    cuda=$(status_of cuda)
    if [ -n "$reason" ] || [ "$cuda" = 127 ]; then return; fi
    said=$(answer cuda -n 's/^error: //p')
    case $cuda:$said in
    0:*) check ok cuda "nn.c trained a step on this GPU" ;;
    124:*) check warn cuda "the first step did not end within 2 seconds" "./train_mlp --device cuda --steps 1" ;;
    *no\ CUDA\ backend*) check FAIL cuda "nn.c was built without CUDA" "make clean && make" ;;
    *"; CUDA driver "*)
        said=${said%; CUDA driver *}
        fix=${said#*; }
        [ "$fix" != "$said" ] || fix=$restart
        check FAIL cuda "${said%%; *}" "$fix"
        ;;
    *) check FAIL cuda "training a step failed: ${said:-status $cuda}" "make clean && make" ;;
    esac
}

# --- what makes it slow

check_graphs() {
    older "${capability:-0}" 12 && return
    version=$(answer wsl -nE '1s/[^0-9]*([0-9.]+).*/\1/p')
    if [ -z "$version" ]; then
        check warn graphs "the version of WSL is unknown; below 2.7.0, RTX 50xx fails to capture graphs" \
            "$restart_wsl; until then: --graph off"
    elif older "$version" 2.7.0; then
        check warn graphs "WSL $version fails to capture CUDA graphs on RTX 50xx (cudaErrorUnknown); 2.7.0 does not" \
            "$restart_wsl; until then: --graph off"
    fi
}

check_windows() {
    if [ -z "$windows" ]; then
        check ok windows "Windows' settings were not looked at: interop is off, which CUDA does not need"
        return
    fi
    if says drivers 'HwSchMode .*0x1[[:space:]]*$'; then
        check warn gpu-scheduling "hardware-accelerated GPU scheduling is off: launches take longer" \
            "in PowerShell as administrator: reg add HKLM\\SYSTEM\\CurrentControlSet\\Control\\GraphicsDrivers /v HwSchMode /t REG_DWORD /d 2 /f; then restart Windows"
    fi
    if says drivers 'TdrDelay .*0x[01][[:space:]]*$'; then
        check warn gpu-timeout "Windows resets the GPU when a kernel takes a second (TdrDelay); its default is two" \
            "in PowerShell as administrator: reg delete HKLM\\SYSTEM\\CurrentControlSet\\Control\\GraphicsDrivers /v TdrDelay /f; then restart Windows"
    fi
    if says power 'a1841308-3541-4fab-bc81-f71556f20b4a'; then # whatever the language, power saver
        check warn power "Windows saves power" "in PowerShell: powercfg /setactive SCHEME_BALANCED"
    fi
    if [ "$(status_of drivers)" = 0 ]; then
        check ok windows "power and GPU settings were looked at"
    else
        check ok windows "Windows did not tell its settings, which CUDA does not need"
    fi
}

check_dmesg() {
    [ "$(status_of dmesg)" = 0 ] || return 0
    if ! says dmesg 'dxgkio_make_resident.*-12'; then
        check ok gpu-memory "never ran out, as far as dmesg goes back"
        return
    fi
    check warn gpu-memory "GPU memory ran out before (dmesg: dxgkio_make_resident -12)" \
        "close other programs that use the GPU, or train with a smaller --batch-size"
}

# check_files DIR: its file system, that of the longest mount point that it is under.
check_files() {
    directory=$1
    if [ -e "$root$directory" ]; then
        directory=$(readlink -f "$root$directory") # data/ may be a link to a Windows drive
        directory=${directory#"$root"}
    else
        check warn files "$directory does not exist" "mkdir -p '$directory', or name another folder"
        return
    fi
    type=$(awk -v dir="$directory/" '{
        point = $2
        gsub(/\\040/, " ", point)
        if (point != "/") point = point "/"
        if (index(dir, point) == 1 && length(point) >= longest) {
            longest = length(point)
            type = $3
        }
    } END {print type}' "$root/proc/mounts" 2>/dev/null)
    case $platform:$type in
    *:9p | *:drvfs | wsl*:virtiofs) check warn files \
        "$directory is on a Windows drive ($type): many times slower than WSL's own disk" \
        "cp -r '$directory' ~/ && cd ~/'${directory##*/}'" ;;
    *:nfs* | *:cifs | *:fuse.*) check warn files "$directory is on a slow file system ($type)" \
        "cp -r '$directory' to a local disk" ;;
    *) check ok files "$directory is on ${type:-an unknown file system}" ;;
    esac
}

check_memory() {
    read -r memory swap processors <<EOF
$(awk '/^MemTotal/ {m = $2} /^SwapTotal/ {s = $2} /^processor/ {p++}
       END {print m + 0, s + 0, p + 0}' "$root/proc/meminfo" "$root/proc/cpuinfo" 2>/dev/null)
EOF
    text="$((memory / 1024)) MiB, swap $((swap / 1024)) MiB, $processors processors"
    if [ "$memory" -ge 3900000 ]; then
        check ok memory "$text"
    elif [ $platform = wsl2 ]; then
        check warn memory "only $text; WSL takes half of Windows' memory" \
            "in PowerShell: notepad \$HOME\\.wslconfig; write under [wsl2] a line such as memory=6GB; then: wsl --shutdown"
    else
        check warn memory "only $text" "close other programs, or train with a smaller --batch-size"
    fi
}

check_clock() {
    clock=$(first_line /sys/devices/system/clocksource/clocksource0/current_clocksource)
    case $clock in
    acpi_pm | hpet | jiffies | hyperv_clocksource_msr | refined-jiffies)
        fix='sudo reboot'
        [ $platform = native ] || fix=$restart_wsl
        check warn clock "the clock source is $clock: timings are slow and distorted" "$fix"
        ;;
    ?*) check ok clock "$clock" ;;
    esac
    governor=$(first_line /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor)
    case $(first_line /sys/devices/system/cpu/cpu0/cpufreq/scaling_driver):$governor in
    *pstate*) ;;
    *:powersave) check warn governor "the processor stays at its lowest frequency (powersave)" \
        "sudo cpupower frequency-set -g performance" ;;
    esac
}

# Outside a container: would one get the GPU? Docker Desktop brings what it needs.
check_docker() {
    docker=$(command -v docker || command -v podman) || return 0
    case $(readlink -f "$docker") in /mnt/wsl/*) return ;; esac
    for cdi in /etc/cdi/nvidia.yaml /var/run/cdi/nvidia.yaml; do
        if [ -e "$root$cdi" ]; then
            check ok docker "containers get the GPU by $cdi"
            return
        fi
    done
    if ! command -v nvidia-ctk >/dev/null; then
        check warn docker "containers get no GPU: no NVIDIA Container Toolkit" \
            "$container_toolkit"
    elif [ $platform = wsl2 ]; then
        check warn docker "containers may get no GPU: there is no CDI description" \
            "sudo nvidia-ctk cdi generate --mode=wsl --output=/etc/cdi/nvidia.yaml"
    elif ! grep -q nvidia "$root/etc/docker/daemon.json" 2>/dev/null; then
        check warn docker "containers get no GPU: Docker does not know NVIDIA's runtime" \
            "$configure_docker"
    fi
}

# --- the report

report() {
    title="$system, kernel $kernel"
    case $platform in
    wsl2) place='WSL 2' ;;
    wsl1) place='WSL 1' ;;
    *) place='native Linux' ;;
    esac
    verdict='ready for CUDA'
    [ -z "$reason" ] || verdict="CPU only, because $reason"
    printf '%s' "$records" | json=$json platform=$platform inside=$container \
        place="${container:+a container in }$place" title=$title verdict=$verdict \
        awk -F '\t' '
    function quote(s) {
        gsub(/[\\"]/, "\\\\&", s)
        gsub(/[\001-\037\177]/, " ", s)
        return "\"" s "\""
    }
    BEGIN {
        json = ENVIRON["json"]
        if (json) {
            printf "{\"platform\": %s, ", quote(ENVIRON["platform"])
            printf "\"container\": %s, ", ENVIRON["inside"] ? "true" : "false"
            printf "\"system\": %s,\n", quote(ENVIRON["title"])
            printf " \"cuda\": %s, ", ENVIRON["verdict"] ~ /^ready/ ? "true" : "false"
            printf "\"verdict\": %s,\n \"checks\": [", quote(ENVIRON["verdict"])
        } else {
            printf "%s: %s\n", ENVIRON["place"], ENVIRON["title"]
        }
    }
    json {
        printf "%s\n  {\"name\": %s, ", (NR > 1 ? "," : ""), quote($2)
        printf "\"status\": %s, ", quote(tolower($1))
        printf "\"text\": %s, \"fix\": %s}", quote($3), quote($4)
        next
    }
    {
        printf "  %-4s  %-16s %s\n", $1, $2, $3
        if ($4 != "") printf "        fix: %s\n", $4
    }
    END { print json ? "]}" : ENVIRON["verdict"] }'
    [ -z "$reason" ]
}

json='' directories='' # one a line
for option; do
    case $option in
    --help | -h) usage && exit ;;
    --json) json=1 ;;
    -*) echo "doctor.sh: unknown option $option: --json or --help" >&2 && exit 2 ;;
    /*) directories="${directories:+$directories$newline}${option%/}" ;;
    *) directories="${directories:+$directories$newline}$PWD/${option%/}" ;;
    esac
done

module='' nvidia=yes
detect
[ $platform != wsl2 ] || restart=$restart_wsl
start_probes
collect
case $platform in
wsl1)
    check_wsl1
    nvidia=''
    ;;
wsl2) check_wsl2 ;;
native) check_native ;;
esac
if [ -n "$nvidia" ]; then
    if [ $platform = wsl2 ] || [ -n "$container" ]; then check_driver_inside; fi
    [ -n "$reason" ] || check_libcuda
    check_environment
    check_gpu
    check_toolkit
    check_cuda
fi
if [ $platform = wsl2 ]; then
    check_graphs
    check_windows
    check_dmesg
fi
while IFS= read -r directory; do
    check_files "$directory"
done <<EOF
${directories:-$tree}
EOF
check_memory
check_clock
if [ -n "$nvidia" ] && [ -z "$container" ]; then check_docker; fi
report
