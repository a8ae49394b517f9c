#!/usr/bin/env bash
# Runs the test suites on the second host: makes its image, builds what runs there, boots it, and runs every suite of the
# table below. The host ends with this script. Needs root, or a user with sudo; cargo runs as the caller.
#
#   ORLOP=/path/to/static/orlop integration/testhost/suites.sh [SUITE...]
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=/dev/null
. integration/testhost/settings.sh

# What is left out of the runtime's own tests has no place there: `layers` and `errors` read the sources, `faults` and `seal`
# are about ptrace(2) and /proc/PID/wchan as user-mode-linux has them not, `steps` wants NUMA and cpusets, and
# `devices` races on two processors.
readonly RUNTIME_TESTS='callers cgroup_devices cgroup_lifecycle checkpoint concurrent fields foreground mounts resctrl seccomp unfinished update'

# What is Docker's own business more than the runtime's; once is enough.
readonly BESIDE='--skip image:: --skip inspect:: --skip volume:: --skip network:: --skip build:: --skip daemon::'

# `docs` comes last: the pages change the machine.
# suite              user    seconds  command, in the directory of the tests
# shellcheck disable=SC2016
readonly SUITES='
conformance          root    1200     TMPDIR=/tmp conformance --runtime $ORLOP
runtime              root    600      ./programs $RUNTIME_TESTS
runtime-unit         root    300      ./orlop-unit --skip libseccomp --skip cli::completion
docker-systemd       root    1800     CGROUP_DRIVER=systemd ./docker default::
docker-cgroupfs      root    900      ./docker --skip default:: --skip run:: --skip security:: $BESIDE
docker-shim          root    900      RUNTIME_TYPE=io.containerd.orlop.v2 ./docker --skip default:: --skip security:: --skip namespaces:: $BESIDE
shim                 root    900      ./shim
cri                  root    900      ./cri
compose              root    600      ./compose
swarm                root    600      ./swarm
containerd           root    900      ./containerd
podman-cgroupfs      root    900      ./podman
podman-systemd       root    900      CGROUP_MANAGER=systemd ./podman
podman-rootless      tester  900      CGROUP_MANAGER=systemd ./podman
docs                 root    600      DISPOSABLE=1 DOCS=/opt/docs ./docs
'

ORLOP=$(realpath -e "${ORLOP:-out/orlop}")
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "the second test host needs root, and there is no sudo: run \`make test-vm\` as root"
        sudo -E "$@"
    fi
}
here=integration/testhost
export VM_BACKEND VM_SUITE VM_MEM VM_SMP VM_DISK VM_CACHE VM_RUN VM_SHARE VM_BOOT_TIMEOUT

# Static, so that they run on any Debian; against glibc, because some of them need more of ptrace(2) than musl has.
build_tests() {
    local list test kind name file
    local cargo=(cargo test --no-run --locked --target "$(uname -m)-unknown-linux-gnu" -p orlop -p orlop-conformance -p orlop-integration)
    local -x RUSTFLAGS="-C target-feature=+crt-static"
    "${cargo[@]}"
    list=$("${cargo[@]}" --quiet --message-format=json |
        jq -r 'select(.executable) | "\(.profile.test) \(.target.kind[0]) \(.target.name) \(.executable)"')
    as_root rm -rf "$VM_SHARE"
    as_root install -d -o "$(id -u)" "$VM_SHARE" "$VM_SHARE/bin" "$VM_SHARE/tests"
    install -m 755 "$ORLOP" "$VM_SHARE/bin/orlop"
    install -m 755 "$(dirname "$ORLOP")/containerd-shim-orlop-v2" "$VM_SHARE/bin/"
    cp -r docs "$VM_SHARE/docs"
    # Runs several programs, each to its end.
    cat >"$VM_SHARE/tests/programs" <<'END'
#!/bin/sh
status=0
for program; do
    echo "==> program $program"
    ./$program || status=1
done
exit $status
END
    chmod 755 "$VM_SHARE/tests/programs"
    while read -r test kind name file; do
        case $test-$kind-$name in
            # The tests of the runtime look for it where it was built.
            false-bin-orlop) install -D -s -m 755 "$file" "$VM_SHARE/built/$file" ;;
            false-bin-*) install -s -m 755 "$file" "$VM_SHARE/bin/$name" ;;
            # Not on PATH: some are called as the engine that they test.
            true-test-*) install -s -m 755 "$file" "$VM_SHARE/tests/$name" ;;
            true-lib-*) install -s -m 755 "$file" "$VM_SHARE/tests/$name-unit" ;;
        esac
    done <<<"$list"
}

# Those that take a compiler or the network to make; the machine has neither.
build_images() {
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}
    as_root env XDG_CACHE_HOME="$cache" "$VM_SHARE/bin/images"
    as_root install -D -m 644 -t "$VM_SHARE/cache/orlop" "$cache"/orlop/*.tar
}

in_vm() { as_root "$here/run.sh" "$@"; }

# Programs and state are on the machine's own disk: the shared directory knows no owners and no device nodes.
prepare() {
    in_vm "set -e
        install -m 755 /share/bin/* /usr/local/bin/
        cp -a /share/built/. /
        cp -a /share/tests /share/docs /opt/
        orlop --version; uname -sr; docker --version; podman --version; systemctl --version | head -n 1"
}

steps=0
step() { # WHAT COMMAND...
    local what=$1 began=$SECONDS
    shift
    steps=$((steps + 1))
    printf '\n==> step %d: %s\n' "$steps" "$what"
    "$@"
    printf '==> step %d: done in %d s\n' "$steps" $((SECONDS - began))
}

version() { awk -v package="$1" '$1 == package || index($1, package ":") == 1 { print $2 }' "$VM_CACHE/packages.txt"; }
# shellcheck disable=SC2034
HOST=debian-$VM_SUITE-$VM_BACKEND
# shellcheck source=/dev/null
. integration/suite.sh
trap 'end_suite; as_root "$here/boot.sh" stop' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$VM_RUN"
exec 8>>"$VM_RUN/.suites"
flock -n 8 || die "another run uses $VM_RUN: wait for its end, or set VM_RUN to another directory"
as_root "$here/boot.sh" stop

began=$SECONDS
step "the image of the machine" as_root "$here/build.sh"
step "the tests, as static programs" build_tests
step "the images of the tests" build_images
step "boot" as_root "$here/boot.sh" start
step "the runtime, inside" prepare
while read -r name user seconds command; do
    [ -n "$name" ] || continue
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    suite "$name" in_vm -u "$user" -t "$seconds" "cd /opt/tests; export TMPDIR=/var/tmp XDG_CACHE_HOME=/share/cache ORLOP=/usr/local/bin/orlop RUNTIME_TESTS='$RUNTIME_TESTS' BESIDE='$BESIDE'; $command"
done <<<"$SUITES"
printf '\nthe second host took %d s\n' $((SECONDS - began))
sum
