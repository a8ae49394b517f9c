#!/usr/bin/env bash
# Runs the test suites on the second host: makes its image, builds what runs there, boots it, and runs every suite that the
# table below has for its backend. VM_MACHINES of it share the suites out between them. They end with this script.
# Needs root, or a user with sudo; cargo runs as the caller.
#
#   ORLOP=/path/to/static/orlop integration/testhost/suites.sh [SUITE...]
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=/dev/null
. integration/testhost/settings.sh

# The runtime's own tests that have no place there: they read the sources.
readonly SOURCES='layers errors supply'
# And those that have none in user-mode-linux: `faults`, `kills` and `seal` are about ptrace(2) and /proc/PID/wchan as it has them not, `steps`
# wants NUMA and cpusets, and `devices` races on two processors. QEMU without KVM takes hours for some of them.
readonly REAL_KERNEL='faults kills seal steps devices'
RUNTIME_TESTS='orlop_sys-unit left no_alloc'
for test in runtime/tests/*.rs; do
    test=$(basename "$test" .rs)
    [[ " $SOURCES $REAL_KERNEL " == *" $test "* ]] || RUNTIME_TESTS+=" $test"
done
readonly RUNTIME_TESTS

# What is Docker's own business more than the runtime's; once is enough.
readonly BESIDE='--skip image:: --skip inspect:: --skip volume:: --skip network:: --skip build:: --skip daemon::'

# Of those of one backend, the longest come first. `docs` is the last, when no machine takes another one: the pages change it.
# backends  suite              user    seconds  command, in the directory of the tests
# shellcheck disable=SC2016
readonly SUITES='
uml,kvm   docker-systemd       root    2400     CGROUP_DRIVER=systemd ./docker default::
uml,kvm   docker-shim          root    2400     RUNTIME_TYPE=io.containerd.orlop.v2 ./docker default::
uml,kvm   docker-cgroupfs      root    1800     ./docker --skip default:: --skip run:: --skip security:: $BESIDE
uml,kvm   cri                  root    1800     ./cri
uml,kvm   shim                 root    1800     ./shim
uml,kvm   podman-cgroupfs      root    1800     ./podman
uml,kvm   podman-systemd       root    1800     CGROUP_MANAGER=systemd ./podman
uml,kvm   podman-rootless      tester  1800     CGROUP_MANAGER=systemd ./podman
uml,kvm   conformance          root    1800     TMPDIR=/tmp conformance --runtime $ORLOP
uml,kvm   containerd           root    1800     ./containerd
uml,kvm   runtime              root    1200     ./programs $RUNTIME_TESTS
uml,kvm   swarm                root    900      ./swarm
uml,kvm   compose              root    900      ./compose
uml,kvm   runtime-unit         root    600      ./orlop-unit --skip libseccomp --skip cli::completion
kvm       runtime-ptrace       root    1200     ./programs $REAL_KERNEL
tcg       conformance-cpus     root    300      conformance --runtime $ORLOP --filter cgroups::cpuset --filter memory_policy:: --filter namespaces::time_
tcg       conformance-criu     root    300      conformance --runtime $ORLOP --filter checkpoint::
tcg       docker-cpus          root    300      CGROUP_DRIVER=systemd ./docker default::resources::cpuset
tcg       podman-criu          root    300      CGROUP_MANAGER=systemd ./podman checkpoint::
tcg       containerd-criu      root    300      ./containerd a_checkpoint
uml,kvm   docs                 root    1200     DISPOSABLE=1 DOCS=/opt/docs ./docs
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
export VM_BACKEND VM_SUITE VM_MACHINES VM_MEM VM_SMP VM_DISK VM_CACHE VM_RUN VM_SHARE VM_BOOT_TIMEOUT

# MACHINE COMMAND...: of several machines, each has a directory and a share of its own; those of the first one are VM_RUN's.
on() {
    local run=$VM_RUN share=$VM_SHARE
    if [ "$1" != 1 ]; then run=$VM_RUN/$1 share=$VM_RUN/$1/share; fi
    as_root env "VM_MACHINE=$1" "VM_RUN=$run" "VM_SHARE=$share" "${@:2}" 8>&-
}

# Static, so that they run on any Debian; against glibc, because some of them need more of ptrace(2) than musl has.
build_tests() {
    local list test kind name file
    local cargo=(cargo test --no-run --locked --target "$(uname -m)-unknown-linux-gnu" -p orlop -p orlop-sys -p orlop-conformance -p orlop-integration)
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

# The one waits for the mirror, the other for the processor.
build_image_and_tests() {
    # As a job: it can be ended whole.
    set -m
    as_root "$here/build.sh" 8>&- &
    set +m
    image=$!
    build_tests
    wait $image
    image=
}

in_vm() { on "$1" "$here/run.sh" "${@:2}"; }

# One machine, with the programs and their state on its own disk: the shared directory knows no owners and no device nodes.
boot() { # MACHINE
    if [ "$1" != 1 ]; then
        as_root rm -rf "$VM_RUN/$1/share"
        as_root install -d "$VM_RUN/$1"
        as_root cp -a --reflink=auto "$VM_SHARE" "$VM_RUN/$1/share"
    fi
    on "$1" "$here/boot.sh" start
    in_vm "$1" "set -e
        install -m 755 /share/bin/* /usr/local/bin/
        cd /share/built && find . -type f -exec install -D -m 755 {} /{} \;
        cp -a /share/tests /share/docs /opt/
        orlop --version; uname -sr; docker --version; podman --version; systemctl --version | head -n 1"
}

boot_all() {
    local machine
    for ((machine = 1; machine <= VM_MACHINES; machine++)); do boot "$machine"; done
}

stop_all() {
    local machine
    for ((machine = 1; machine <= VM_MACHINES; machine++)); do on "$machine" "$here/boot.sh" stop; done
}

# What a test says is printed when its suite has ended, so that two suites do not mix; in the meantime it lies in this directory.
logs='' image=''
declare -A running_on=() started=() name_of=()
queue=()

begin() { # MACHINE ROW
    local machine=$1 name user seconds command
    read -r name user seconds command <<<"$2"
    [ "$VM_BACKEND" != tcg ] || seconds=$((seconds * 10))
    # As a job: without, it would start with SIGINT ignored, and hand that down to every program under test.
    set -m
    in_vm "$machine" -u "$user" -t "$seconds" "cd /opt/tests; export TMPDIR=/var/tmp RUST_TEST_THREADS=2 XDG_CACHE_HOME=/share/cache ORLOP=/usr/local/bin/orlop RUNTIME_TESTS='$RUNTIME_TESTS' REAL_KERNEL='$REAL_KERNEL' BESIDE='$BESIDE'; $command" \
        >"$logs/$name.log" 2>&1 </dev/null &
    set +m
    running_on[$machine]=$! started[$machine]=$SECONDS name_of[$machine]=$name
    printf '==> %s begins on machine %d: %s; %d wait\n' "$name" "$machine" "$command" ${#queue[@]}
}

# Waits a while for the end of the suite of any machine.
ended() {
    local machine
    for _ in {1..60}; do
        for machine in "${!running_on[@]}"; do
            [ -d "/proc/${running_on[$machine]}" ] || return 0
        done
        sleep 1
    done
    for machine in "${!running_on[@]}"; do
        printf '    machine %d: %s for %d s, %d lines; the last one: %s\n' "$machine" "${name_of[$machine]}" $((SECONDS - started[$machine])) \
            "$(wc -l <"$logs/${name_of[$machine]}.log")" "$(tail -n 1 "$logs/${name_of[$machine]}.log" | cut -c 1-120)"
    done
}

finish() { # MACHINE
    local machine=$1 name=${name_of[$1]} status=0
    wait "${running_on[$machine]}" || status=$?
    unset "running_on[$machine]"
    printf '\n==> %s, which ran on machine %d:\n' "$name" "$machine"
    cat "$logs/$name.log"
    tally "$name" "$logs/$name.log" $status $((SECONDS - started[$machine]))
    on "$machine" "$here/boot.sh" status >/dev/null && return
    printf '==> machine %d is gone\n' "$machine"
    broken+=("machine $machine (it ended in $name)")
    return 1
}

run_all() {
    local free=() machine
    for ((machine = 1; machine <= VM_MACHINES; machine++)); do free+=("$machine"); done
    while [ ${#queue[@]} != 0 ] || [ ${#running_on[@]} != 0 ]; do
        while [ ${#queue[@]} != 0 ] && [ ${#free[@]} != 0 ]; do
            local row=${queue[0]}
            queue=("${queue[@]:1}")
            begin "${free[0]}" "$row"
            free=("${free[@]:1}")
        done
        if [ ${#running_on[@]} = 0 ]; then
            for row in "${queue[@]}"; do broken+=("${row%% *} (no machine is left)"); done
            return
        fi
        ended
        for machine in "${!running_on[@]}"; do
            if [ ! -d "/proc/${running_on[$machine]}" ] && finish "$machine"; then free+=("$machine"); fi
        done
    done
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
stop_everything() {
    local machine
    [ -z "$image" ] || as_root kill -- "-$image" 2>/dev/null || true
    for machine in "${!running_on[@]}"; do as_root kill -- "-${running_on[$machine]}" 2>/dev/null || true; done
    end_suite
    stop_all
}
trap stop_everything EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Now, while there is a terminal to ask for a password on.
[ "$(id -u)" = 0 ] || sudo -v
as_root install -d -o "$(id -u)" "$VM_RUN"
exec 8>>"$VM_RUN/.suites"
flock -n 8 || die "another run uses $VM_RUN: wait for its end, or set VM_RUN to another directory"
stop_all
# shellcheck disable=SC2154
logs=${results%.tsv}
rm -rf "$logs"
mkdir -p "$logs"

# shellcheck disable=SC2034
PART=$*
while read -r backends name row; do
    [ -n "$name" ] || continue
    if [ $# = 0 ]; then [[ ",$backends," == *",$VM_BACKEND,"* ]] || continue; else [[ " $* " == *" $name "* ]] || continue; fi
    queue+=("$name $row")
done <<<"$SUITES"
for name in "$@"; do printf '%s\n' "${queue[@]}" | grep -q "^$name " || die "no such suite: $name"; done
[ ${#queue[@]} != 0 ] || die "VM_BACKEND is uml, tcg or kvm, not $VM_BACKEND"
[ "$VM_MACHINES" -le ${#queue[@]} ] || VM_MACHINES=${#queue[@]}

began=$SECONDS
step "the image of the machine, and the tests as static programs" build_image_and_tests
step "the images of the tests" build_images
step "boot of $VM_MACHINES" boot_all
step "${#queue[@]} suites" run_all
printf '\nthe second host took %d s\n' $((SECONDS - began))
sum
