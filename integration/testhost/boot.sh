#!/usr/bin/env bash
# Starts and stops the second test host. What it writes to its disk is thrown away when it stops. Needs root.
#
#   boot.sh start|stop|status
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/settings.sh"

readonly pidfile=$VM_RUN/pid
readonly KERNEL_LINE=(rw quiet loglevel=4 panic=-1 mitigations=off apparmor=1 security=apparmor net.ifnames=0 systemd.show_status=0)
pid='' born=''

# A pid may be another process's by now; together with its start time it is not.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
# user-mode-linux goes on, doing nothing, after a panic.
readonly PANIC='Kernel panic - not syncing'
panicked() { grep -aqs "$PANIC" "$VM_RUN/console.log"; }
alive() { [ -s "$pidfile" ] && read -r pid born <"$pidfile" && [ "$(start_time "$pid")" = "$born" ]; }

stop() {
    if alive; then
        kill "$pid" 2>/dev/null || true
        for _ in {1..50}; do alive || break; sleep 0.1; done
        if alive; then kill -KILL "$pid" 2>/dev/null || true; fi
    fi
    rm -rf "$pidfile" "$VM_RUN/cow" "$VM_RUN/where" "$VM_SHARE/.spool"
}

# Which of the processors that we may use is the one of user-mode-linux: its kernel and its processes take turns by ptrace(2), and whoever is woken
# on another processor than the waker's has to wait for it.
processor() {
    taskset -cp $$ | sed 's/.*: //' | tr , '\n' | while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done |
        sed -n "$(((VM_MACHINE - 1) % $(nproc) + 1))p"
}

# In a mount and a pid namespace of its own: it ends whole when the recorded process does, and leaves no mount behind.
start_uml() {
    need unshare util-linux
    setsid taskset -c "$(processor)" unshare --mount --propagation private --pid --fork --kill-child "$here/uml.sh" "$VM_CACHE" "$VM_RUN" "$VM_SHARE" "$VM_MEM" \
        "${KERNEL_LINE[@]}" </dev/null >"$VM_RUN/console.log" 2>&1 9>&- &
}

start_qemu() { # ACCELERATOR CPU
    need qemu-system-x86_64 qemu-system-x86
    setsid qemu-system-x86_64 -name vm -accel "$1" -cpu "$2" -machine q35,usb=off,vmport=off,hpet=off -smp "$VM_SMP" -m "$VM_MEM" \
        -nodefaults -no-user-config -no-reboot -display none -monitor none -serial stdio \
        -kernel "$VM_CACHE/vmlinuz" -initrd "$VM_CACHE/initrd.img" -append "root=/dev/vda console=ttyS0 tsc=reliable ${KERNEL_LINE[*]}" \
        -drive "file.filename=$VM_CACHE/root.ext4,file.locking=off,format=raw,if=none,id=d0,cache=unsafe,snapshot=on" -device virtio-blk-pci,drive=d0 \
        -netdev user,id=n0,restrict=on -device virtio-net-pci,netdev=n0,romfile= -device virtio-rng-pci \
        -fsdev "local,id=f0,path=$VM_SHARE,security_model=none,multidevs=remap" -device virtio-9p-pci,fsdev=f0,mount_tag=share \
        </dev/null >"$VM_RUN/console.log" 2>&1 9>&- &
}

start() {
    local began why end=$((SECONDS + VM_BOOT_TIMEOUT))
    began=$(date +%s%N)
    mkdir -p "$VM_RUN" "$VM_SHARE"
    exec 9>"$VM_RUN/.lock"
    flock -w 600 9 || die "another start holds $VM_RUN/.lock"
    if alive && ! panicked; then
        say "already running, pid $pid"
        return
    fi
    [ -s "$VM_CACHE/stamp" ] || die "no image in $VM_CACHE: run build.sh"
    stop
    mkdir -p "$VM_SHARE/.spool"
    : >"$VM_RUN/console.log"
    printf '%s\n' "$VM_BACKEND" "$(realpath "$VM_SHARE")" >"$VM_RUN/where"
    case $VM_BACKEND in
        uml) start_uml ;;
        tcg) start_qemu tcg,thread=multi,tb-size=512 Nehalem ;;
        kvm) start_qemu kvm host ;;
        *) die "VM_BACKEND is uml, tcg or kvm, not $VM_BACKEND" ;;
    esac
    pid=$!
    echo "$pid $(start_time "$pid")" >"$pidfile"
    until [ -s "$VM_SHARE/.spool/ready" ]; do
        why=
        alive || why="ended while it booted"
        ! panicked || why="panicked while it booted"
        [ $SECONDS -lt $end ] || why="does not answer after $VM_BOOT_TIMEOUT s"
        if [ -n "$why" ]; then
            tail -n 25 "$VM_RUN/console.log" >&2
            stop
            die "the $VM_BACKEND machine $why; its console is above"
        fi
        sleep 0.1
    done
    local tenths=$((($(date +%s%N) - began) / 100000000))
    say "$VM_BACKEND machine up in $((tenths / 10)).$((tenths % 10)) s, kernel $(cut -d ' ' -f 1 "$VM_SHARE/.spool/ready"), pid $pid"
}

need_root
case ${1:-} in
    start) start ;;
    stop) stop ;;
    status)
        alive || die "stopped"
        if panicked; then
            grep -a -A 40 "$PANIC" "$VM_RUN/console.log" >&2
            die "its kernel has panicked: see above"
        fi
        say "$(head -n 1 "$VM_RUN/where") machine, pid $pid, /share is $(tail -n 1 "$VM_RUN/where")"
        ;;
    *) die "usage: boot.sh start|stop|status" ;;
esac
