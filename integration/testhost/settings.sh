# shellcheck shell=bash
# What the scripts of the second test host share. Every variable may be set by the caller.

: "${VM_BACKEND:=uml}"              # uml: Debian's user-mode-linux, a process; tcg: QEMU without KVM; kvm: QEMU with it
: "${VM_SUITE:=trixie}"             # the Debian release inside
: "${VM_MEM:=3072}"                 # the memory of a machine, in MiB
# how many machines share the suites out between them: two of user-mode-linux where each has a processor and memory of its own
if [ "$VM_BACKEND" = uml ] && [ "$(nproc)" -gt 1 ] && [ "$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)" -gt $((2 * (VM_MEM + 1024))) ]; then
    : "${VM_MACHINES:=2}"
fi
: "${VM_MACHINES:=1}"
: "${VM_MACHINE:=1}"                # which of them this one is
: "${VM_SMP:=2}"                    # the processors of each; user-mode-linux has one
: "${VM_DISK:=8192}"                # the size of its disk, in MiB; the file is sparse
: "${VM_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/orlop/testhost}"     # the image
: "${VM_RUN:=$VM_CACHE/run}"        # one running machine: its pid, console, and what it writes to its disk; of several, the first one
: "${VM_SHARE:=$VM_RUN/share}"      # the host's directory that is /share inside
: "${VM_BOOT_TIMEOUT:=300}"         # seconds until a booting machine must answer

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }
die() { say "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2, or run integration/setup.sh vm"; }
need_root() { [ "$(id -u)" = 0 ] || die "needs root"; }
