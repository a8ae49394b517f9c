#!/usr/bin/env bash
# Becomes the user-mode-linux machine. boot.sh runs it as the first process of a mount and a pid namespace.
#
#   uml.sh CACHE RUN SHARE MEMORY KERNEL_ARGUMENT...
set -euo pipefail
cache=$1 run=$2 share=$3 memory=$4 root=$2/uml
shift 4

mkdir -p "$root"
mount -t tmpfs tmpfs "$root"
mkdir "$root"/{proc,dev,tmp,share,cache,run}
cp -a "$cache/uml/." "$cache/uml-host.so" "$root/"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# The machine's memory is a file here.
mount -t tmpfs -o "size=$((memory + 512))m,exec" tmpfs "$root/tmp"
mount --bind "$share" "$root/share"
mount --bind "$cache" "$root/cache"
mount --bind "$run" "$root/run"
# Nothing that is written there is to outlive the machine: no write barriers, each of which is an fsync(2) of the host's disk.
# chroot(1) itself does not find the preloaded file, and says so: harmless.
TMPDIR=/tmp HOME=/tmp LD_PRELOAD=/uml-host.so exec chroot "$root" /linux.uml umid=vm "mem=${memory}M" \
    ubd0=/run/cow,/cache/root.ext4 root=/dev/ubda rootflags=barrier=0 con=null con0=null,fd:1 ssl=null "$@"
