#!/usr/bin/env bash
# Runs every test suite on this machine against one runtime binary, and sums up: `N passed, N failed`. See suite.sh.
#
#   ORLOP=/path/to/orlop integration/suites.sh
set -euo pipefail
cd "$(dirname "$0")/.."

ORLOP=$(realpath -e "${ORLOP:-out/orlop}")
# Two names for one thing: the conformance checks run against any runtime, and call it that.
export ORLOP RUNTIME=$ORLOP

if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "test: the kernel tests need root, and there is no sudo: run \`make test\` as root" >&2; exit 1; }
    # Now, while there is a terminal to ask for a password on.
    sudo -v
    # Cargo compiles as the user; only the test programs run as root. What they keep, they keep where the user may, too.
    mkdir -p "${XDG_CACHE_HOME:-$HOME/.cache}/orlop"
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E"
fi

version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null; }
cgroups() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo v2; elif [ -d /sys/fs/cgroup/unified ]; then echo hybrid; else echo v1; fi
}
# shellcheck source=/dev/null disable=SC2034
HOST=$(. /etc/os-release && echo "$ID-$VERSION_ID-cgroup-$(cgroups)")
# shellcheck source=/dev/null
. integration/suite.sh

podman_without_root() {
    local program skip=() as_root=()
    program=$(cargo test -q --no-run -p orlop-integration --test podman --message-format=json | jq -r 'select(.executable and .target.name == "podman").executable')
    # Podman shows the host's message queues to who shares its IPC namespace; systemd mounts them.
    if [ ! -d /dev/mqueue ]; then
        echo "isolation::host_namespaces is left out: this host has no /dev/mqueue"
        skip=(--skip isolation::host_namespaces)
    fi
    [ "$(id -u)" = 0 ] || as_root=(sudo -E)
    "${as_root[@]}" integration/as-user.sh "$program" "${skip[@]}"
}

trap end_suite EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

suite unit cargo test --workspace --exclude orlop-conformance --exclude orlop-integration --no-fail-fast
suite conformance cargo test -p orlop-conformance --no-fail-fast
suite engines cargo test -p orlop-integration --no-fail-fast
suite podman-rootless podman_without_root
sum
