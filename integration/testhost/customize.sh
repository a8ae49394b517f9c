#!/usr/bin/env bash
# Makes the second test host of Debian's packages: build.sh runs it on the root directory ($1) before that becomes a disk.
# OPTIONAL are the packages that may be missing; OUT is where the files go that lie beside the disk.
set -euo pipefail
root=$1
here=$(cd "$(dirname "$0")" && pwd)
inside() { chroot "$root" "$@"; }
for package in $OPTIONAL; do
    if [ -n "$(inside apt-cache policy "$package" | awk '$1 == "Candidate:" && $2 != "(none)"')" ]; then
        inside apt-get install -y --no-install-recommends "$package" >/dev/null
    else
        echo "NOTE: no package $package"
    fi
done

# A user for rootless containers, whose systemd session is there from boot on.
inside useradd -m -s /bin/bash -u 1000 tester
for file in subuid subgid; do
    grep -q '^tester:' "$root/etc/$file" || echo 'tester:100000:65536' >>"$root/etc/$file"
done
install -d "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/tester"

echo vm >"$root/etc/hostname"
printf '127.0.0.1 localhost vm\n' >"$root/etc/hosts"
printf 'tmpfs /tmp tmpfs mode=1777 0 0\n' >"$root/etc/fstab"
: >"$root/etc/motd"
mkdir -p "$root/share" "$root/etc/systemd/network"
printf '[Match]\nType=ether\nKind=!*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' \
    >"$root/etc/systemd/network/10-vm.network"
inside systemctl -q enable systemd-networkd docker.socket
# The suites start the engines that they need; timers would only disturb.
for unit in docker.service containerd.service podman.service podman-auto-update.service podman-restart.service systemd-networkd-wait-online.service; do
    inside systemctl -q disable $unit 2>/dev/null || true
done
inside systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    man-db.timer systemd-timesyncd.service getty@tty1.service serial-getty@ttyS0.service podman-auto-update.timer systemd-firstboot.service \
    systemd-pcrphase.service ldconfig.service systemd-hwdb-update.service systemd-tmpfiles-clean.timer 2>/dev/null || true

install -m 755 "$here/agent.sh" "$root/usr/local/sbin/vm-agent"
cat >"$root/etc/systemd/system/vm-agent.service" <<'UNIT'
[Unit]
Description=runs what the host asks for
After=basic.target dbus.socket systemd-logind.service
[Service]
ExecStart=/usr/local/sbin/vm-agent
Restart=always
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
OOMPolicy=continue
OOMScoreAdjust=-900
[Install]
WantedBy=multi-user.target
UNIT
inside systemctl -q enable vm-agent

# Debian's hundred AppArmor profiles take a minute to parse in QEMU; only those about containers matter here.
find "$root/etc/apparmor.d" -maxdepth 1 -type f ! -name runc ! -name crun ! -name podman ! -name busybox -delete
# User-mode-linux: its modules where modprobe looks; the kernel and the C library that it was built for go beside the image.
for modules in "$root"/usr/lib/uml/modules/*; do ln -s "../uml/modules/${modules##*/}" "$root/usr/lib/modules/${modules##*/}"; done
lib=usr/lib/x86_64-linux-gnu
mkdir -p "$OUT/uml/lib64" "$OUT/uml/${lib#usr/}"
cp "$root/usr/bin/linux.uml" "$OUT/uml/"
cp -L "$root/$lib/libc.so.6" "$OUT/uml/${lib#usr/}/"
cp -L "$root/usr/lib64/ld-linux-x86-64.so.2" "$OUT/uml/lib64/"
# QEMU: the smallest initrd that finds the disk, and no drivers of hardware that a virtual machine never has.
printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\n' >"$root/etc/initramfs-tools/conf.d/vm"
printf 'virtio_pci\nvirtio_blk\next4\n' >>"$root/etc/initramfs-tools/modules"
inside update-initramfs -u >/dev/null
for kernel in "$root"/usr/lib/modules/*-amd64/kernel; do
    (cd "$kernel" && rm -rf sound net/bluetooth net/mac80211 net/wireless fs/xfs fs/ocfs2)
    (cd "$kernel/drivers" && rm -rf gpu media net/wireless net/ethernet infiniband staging iio scsi usb hid isdn bluetooth mtd hwmon comedi)
    inside depmod "$(basename "$(dirname "$kernel")")"
done
echo uninitialized >"$root/etc/machine-id"
inside systemd-machine-id-setup >/dev/null 2>&1
inside dpkg-query -W >"$OUT/packages.txt"
cp "$(find "$root/boot" -name 'vmlinuz-*' | sort -V | tail -n 1)" "$OUT/vmlinuz"
cp "$(find "$root/boot" -name 'initrd.img-*' | sort -V | tail -n 1)" "$OUT/initrd.img"
rm -rf "${root:?}"/usr/share/{doc,locale,man}/* "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* "${root:?}"/boot/*
