#!/usr/bin/env bash
# Builds the image of the second test host from Debian's packages: root.ext4, vmlinuz, initrd.img and uml/ in VM_CACHE.
# Does nothing while what it is made of (these files and the variables) is unchanged. Needs root.
#
#   build.sh [--force]
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/settings.sh"

# Seconds: the mirror may be slow, but it must not hang.
readonly LIMIT=1800
readonly PACKAGES='
linux-image-amd64 initramfs-tools zstd user-mode-linux
systemd systemd-sysv udev kmod dbus dbus-user-session libpam-systemd apparmor
iproute2 iptables nftables procps strace jq ca-certificates busybox-static uidmap
docker.io docker-cli containerd runc crun
podman buildah catatonit netavark aardvark-dns passt slirp4netns fuse-overlayfs containernetworking-plugins
'
# Not in every release: one that is missing is told of, and the tests that need it say so.
export OPTIONAL='criu docker-buildx docker-compose'

need_root
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
need cc gcc
[ "$(uname -m)" = x86_64 ] || die "the second test host is made for x86_64, this is $(uname -m)"

stamp=$({ cat "$here"/{build,customize,agent}.sh; echo "$VM_SUITE $VM_DISK"; } | sha256sum | cut -c 1-16)
mkdir -p "$VM_CACHE"
exec 9>"$VM_CACHE/.lock"
flock -w 3600 9 || die "another build holds $VM_CACHE/.lock"
cc -O2 -Wall -shared -fPIC -o "$VM_CACHE/uml-host.so.new" "$here/uml-host.c"
mv "$VM_CACHE/uml-host.so.new" "$VM_CACHE/uml-host.so"
if [ "${1:-}" != --force ] && [ "$(cat "$VM_CACHE/stamp" 2>/dev/null)" = "$stamp" ]; then
    say "$VM_SUITE is cached ($VM_CACHE, $stamp)"
    exit 0
fi

work=$(mktemp -d "$VM_CACHE/build.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir "$work/out"

# The mirrors, proxies and keys that apt on this machine uses; no mirror is named here.
mirror() { # LABEL: the address of Debian's archive of that label
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -F '|' -v label="$1" '$1 == "Debian" && $2 == label { print $3; exit }'
}
if [ -z "$(mirror Debian)" ]; then
    say "apt-get update"
    apt-get update -qq
fi
main=$(mirror Debian)
[ -n "$main" ] || die "apt on this machine has no source of Debian packages"
security=$(mirror Debian-Security)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || die "$keyring is missing: apt-get install debian-archive-keyring"
{
    echo "deb [signed-by=$keyring] $main $VM_SUITE main"
    if [ "$VM_SUITE" != sid ]; then
        echo "deb [signed-by=$keyring] $main $VM_SUITE-updates main"
        [ -z "$security" ] || echo "deb [signed-by=$keyring] $security $VM_SUITE-security main"
    fi
} >"$work/sources.list"
proxies=()
while read -r line; do proxies+=("--aptopt=$line"); done < <(apt-config dump | grep -iE '^Acquire::[a-z]+::Proxy(::| )' || true)

began=$SECONDS
say "$VM_SUITE from $main"
OUT=$work/out timeout --foreground -k 10 $LIMIT mmdebstrap --mode=root --variant=minbase \
    --include="$(xargs <<<"$PACKAGES" | tr ' ' ,)" "${proxies[@]}" --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --aptopt='Acquire::Retries "3"' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --customize-hook="'$here/customize.sh' \"\$1\"" \
    "$VM_SUITE" "$work/root" "$work/sources.list" >"$VM_CACHE/build.log" 2>&1 9>&- || {
    tail -n 20 "$VM_CACHE/build.log" >&2
    die "mmdebstrap failed; all that it said is in $VM_CACHE/build.log"
}
say "packages installed in $((SECONDS - began)) s"
grep '^NOTE: ' "$VM_CACHE/build.log" || true

began=$SECONDS
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -L vmroot -d "$work/root" "$work/out/root.ext4" "${VM_DISK}M" >/dev/null
rm -rf "$VM_CACHE/stamp" "$VM_CACHE/uml"
mv -f "$work"/out/* "$VM_CACHE/"
echo "$stamp" >"$VM_CACHE/stamp"
say "disk made in $((SECONDS - began)) s, $(du -m "$VM_CACHE/root.ext4" | cut -f 1) MiB in $VM_CACHE"
