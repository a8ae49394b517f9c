#!/usr/bin/env bash
# Shows a runtime at work on this machine: an OCI bundle with the runtime alone, then containers under a private dockerd.
# Nothing of it touches the machine's own Docker: the daemon, its containerd, sockets and data live in one temporary
# directory, without a bridge or firewall rules; everything is taken down again at the end, whatever happened.
#
#   ORLOP=/path/to/runtime integration/demo/demo.sh     (any runtime with runc's command line; default: out/orlop)
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/sbin:/sbin"

ORLOP=$(realpath -m "${ORLOP:-out/orlop}")
export ORLOP
if [ ! -x "$ORLOP" ]; then
    echo "demo: no runtime at $ORLOP: run \`make demo\`, which builds it first" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "demo: containers need root, and there is no sudo: run \`make demo\` as root" >&2
        exit 1
    fi
    exec sudo ORLOP="$ORLOP" integration/demo/demo.sh
fi

name=$(basename "$ORLOP")
# Docker keeps the name runc for the default runtime.
runtime=$name
[ "$name" != runc ] || runtime=runc-demo
# Short: the paths of sockets below it end at 107 bytes. Not on /tmp, which may be a tmpfs or mounted nodev.
work=$(mktemp -d /var/tmp/orlop-demo.XXXXXX)
id=demo-${work##*.}
export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/client
if [ -d /run/systemd/system ]; then parent=orlopdemo${work##*.}.slice; else parent=/$id; fi
readonly name runtime work id parent
readonly image=busybox:demo

# ---- what is printed

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' off=$'\e[0m'; else bold='' dim='' green='' red='' off=''; fi
steps=0
section() { printf '\n%s%s%s\n' "$bold" "$1" "$off"; }
step() {
    steps=$((steps + 1))
    printf '\n%s%2d. %s%s\n' "$bold" "$steps" "$1" "$off"
}
tick() { printf '    %s✓%s %s\n' "$green" "$off" "$1"; }
indent() { awk '{ print "    " $0 }' "$1"; }
fail() {
    printf '    %s✗ %s%s\n' "$red" "$1" "$off"
    exit 1
}

# Runs one command line as a user would type it, prints it and what it says; its output stays in $work/output.
# EXPECT is an extended regular expression that the output must match; where it is empty, any output will do.
# The output goes to a file, not to a pipe: a container that is created keeps it open.
run() { # EXPECT COMMAND-LINE
    shown "$2" "$1" 0
}
run_and_fail() { # EXPECT COMMAND-LINE
    shown "$2" "$1" 1
}
shown() { # COMMAND-LINE EXPECT FAILS(0|1)
    local status=0
    printf '    %s$ %s%s\n' "$dim" "${1//"$work"\//}" "$off"
    (cd "$work" && PATH="$(dirname "$ORLOP"):$PATH" timeout -k 5 60 bash -c "$1") >"$work/output" 2>&1 </dev/null || status=$?
    # What a terminal adds: carriage returns and escape sequences.
    sed -i 's/\r//g; s/\x1b\[[0-9;]*[a-zA-Z]//g' "$work/output"
    indent "$work/output"
    [ $((status != 0)) = "$3" ] || fail "exit status $status"
    [ -z "$2" ] || grep -qE -- "$2" "$work/output" || fail "expected to see: $2"
}

# ---- what is taken down

daemons=()
start_daemon() { # NAME COMMAND...
    local log=$work/$1.log
    shift
    # Its own session: Ctrl-C must reach this script alone, so that the containers go before their daemon.
    setsid "$@" >"$log" 2>&1 </dev/null &
    daemons+=($!)
}
stop_daemons() {
    local i pid
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        pid=${daemons[i]}
        kill "$pid" 2>/dev/null || continue
        timeout 20 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
    done
    wait || true
}
unmount_below() { # DIRECTORY
    local point
    awk -v dir="$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
        umount -l "$point" || true
    done
}
# The demo's own control groups: that of the bundle and the parent of Docker's. The random id is in the names of both.
own_cgroups() { find /sys/fs/cgroup -depth -type d \( -path "*/$id*" -o -path "*/${parent#/}*" \) 2>/dev/null; }
# A runtime that fails may leave a process behind, so ending it is not left to the runtime: whatever is in the demo's own
# control groups was started by the demo. A frozen one is thawed, for it would not die.
end_processes() {
    local directory pid
    own_cgroups | while read -r directory; do
        [ ! -e "$directory/freezer.state" ] || echo THAWED >"$directory/freezer.state"
        [ ! -e "$directory/cgroup.freeze" ] || echo 0 >"$directory/cgroup.freeze"
        while read -r pid; do [ "$pid" = 0 ] || kill -KILL "$pid"; done <"$directory/cgroup.procs"
    done 2>/dev/null
}
remove_cgroups() {
    local directory attempt
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        own_cgroups | while read -r directory; do rmdir "$directory" 2>/dev/null; done
        [ -n "$(own_cgroups)" ] || return 0
        sleep "0.$attempt"
    done
}
# What is still there after all that, one line each; nothing when the machine is as it was.
left_behind() {
    own_cgroups
    awk -v dir="$work/" 'index($5, dir) == 1 { print "mount " $5 }' /proc/self/mountinfo
    [ ! -e "$work" ] || echo "$work"
    local pid
    for pid in "${daemons[@]}"; do
        ! kill -0 "$pid" 2>/dev/null || echo "process $pid"
    done
    # Shims and inits carry the directory in their command line; grep itself must not, so it reads the pattern.
    # shellcheck disable=SC2062 # --file takes no pattern
    grep --files-with-matches --no-messages --fixed-strings --file=- -- /proc/[0-9]*/cmdline <<<"$work/" | sed 's|/proc/\([0-9]*\)/.*|process \1|'
}

take_down() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    if [ "$status" != 0 ]; then
        local log
        for log in "$work"/{containerd,dockerd}.log; do
            [ -s "$log" ] || continue
            printf '\n    last lines of %s:\n' "$(basename "$log" .log)"
            grep -v 'level=info' "$log" | tail -n 12 | cut -c 1-400 | sed 's/^/    | /'
        done
    fi
    timeout 20 "$ORLOP" --root "$work/state" delete --force "$id" >/dev/null 2>&1
    if [ -S "$work/docker.sock" ]; then
        # shellcheck disable=SC2046 # one word for each id
        timeout 30 docker rm --force $(timeout 10 docker ps --all --quiet) >/dev/null 2>&1
    fi
    end_processes
    stop_daemons
    unmount_below "$work"
    remove_cgroups
    rm -rf --one-file-system "$work"
    local left cleaned='everything is cleaned up'
    left=$(left_behind)
    if [ -n "$left" ]; then
        cleaned='NOT everything is cleaned up'
        printf '\n    left behind:\n'
        printf '    | %s\n' "${left//$'\n'/$'\n    | '}"
    fi
    if [ "$status" != 0 ]; then
        printf '\n%s✗ step %d failed with %s; %s.%s\n' "$red" "$steps" "$name" "$cleaned" "$off"
    elif [ -n "$left" ]; then
        printf '\n%s✗ %d steps passed with %s; %s.%s\n' "$red" "$steps" "$name" "$cleaned" "$off"
        status=1
    else
        printf '\n%s✓ %d steps passed with %s in %d s; %s.%s\n' "$green" "$steps" "$name" "$SECONDS" "$cleaned" "$off"
    fi
    exit "$status"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- an OCI bundle, with the runtime alone

make_rootfs() { # DIRECTORY
    mkdir -p "$1"/{bin,dev,etc,proc,root,sys,tmp}
    chmod 1777 "$1/tmp"
    cp "$(command -v busybox)" "$1/bin/busybox"
    local applet
    for applet in $("$1/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
    echo 'root:x:0:' >"$1/etc/group"
}

wait_until() { # WHAT SECONDS COMMAND...
    local what=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "$what: not within the time"
        # One that has ended will never get there.
        [ ${#daemons[@]} = 0 ] || kill -0 "${daemons[-1]}" 2>/dev/null || fail "$what: the daemon has ended"
        sleep 0.1
    done
}
status_is() { "$ORLOP" --root "$work/state" state "$id" | jq -e --arg s "$1" '.status == $s'; }

alone() {
    local orlop="$name --root $work/state"
    section "An OCI bundle, with $name alone"

    step "Which runtime is this?"
    run 'version' "$name --version"
    tick "$(du -h --apparent-size "$(realpath "$ORLOP")" | cut -f 1), $(if ldd "$ORLOP" >"$work/ldd" 2>&1 && ! grep -q 'statically linked' "$work/ldd"; then echo dynamic; else echo static; fi)"

    step "Make a bundle: a root file system of busybox, and the default config.json"
    mkdir "$work/bundle"
    make_rootfs "$work/bundle/rootfs"
    run '' "cd bundle && $name spec"
    # shellcheck disable=SC2016 # $$ and $( ) are for the shell in the container
    jq '.process.terminal = false
        | .process.args = ["sh", "-c", "echo hello from pid $$ on $(hostname), uid $(id -u); exec sleep 600"]' \
        "$work/bundle/config.json" >"$work/config.json"
    mv "$work/config.json" "$work/bundle/config.json"
    run '"sleep 600"|exec sleep 600' "jq -c .process.args bundle/config.json"
    tick "bundle ready"

    step "create: the container is set up, its program does not run yet"
    run '' "$orlop create --bundle bundle $id >container.log 2>&1"
    [ ! -s "$work/container.log" ] || fail "the program said something before start: $(cat "$work/container.log")"
    tick "created"

    step "state: it is created"
    run '"status": *"created"' "$orlop state $id"
    tick "created, with a pid"

    step "start: the program runs"
    run '' "$orlop start $id"
    wait_until "the program's greeting" 10 grep -q . "$work/container.log"
    run '^hello from pid 1 ' "cat container.log"
    status_is running >/dev/null || fail "the status is not running"
    tick "running"

    step "exec: another process in it"
    run 'sleep 600' "$orlop exec $id ps"
    tick "the container sees its own processes only"

    step "kill: a signal ends it"
    run '' "$orlop kill $id KILL"
    wait_until "the end of the program" 10 status_is stopped
    run '"status": *"stopped"' "$orlop state $id"
    tick "stopped"

    step "delete: nothing is left"
    run '' "$orlop delete $id"
    run_and_fail 'does not exist' "$orlop state $id"
    [ -z "$(ls -A "$work/state")" ] || fail "left in the state directory: $(ls -A "$work/state")"
    tick "deleted"
}

# ---- containers under a private dockerd

start_docker() {
    mkdir -p "$work"/{client,containerd,docker}
    cat >"$work/containerd.toml" <<TOML
version = 2
root = "$work/containerd/root"
state = "$work/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = "$work/containerd.sock"
TOML
    start_daemon containerd containerd --log-level warn --config "$work/containerd.toml"
    wait_until "containerd's socket" 20 test -S "$work/containerd.sock"
    # Whatever /etc/docker/daemon.json says is meant for the machine's own.
    echo '{}' >"$work/dockerd.json"
    # No bridge and no firewall rules: those belong to the machine, and a second dockerd would rewrite them.
    start_daemon dockerd dockerd --config-file "$work/dockerd.json" --host "$DOCKER_HOST" --containerd "$work/containerd.sock" \
        --data-root "$work/docker/data" --exec-root "$work/docker/exec" --pidfile "$work/docker/pid" \
        --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false \
        --cgroup-parent "$parent" --add-runtime "$runtime=$ORLOP"
    wait_until "dockerd's answer" 60 docker version
}

paused_counter_stands() {
    local before after
    before=$(docker logs counter | wc -l)
    sleep 1
    after=$(docker logs counter | wc -l)
    [ "$before" -gt 0 ] && [ "$before" = "$after" ]
}

with_docker() {
    local docker_run="docker run --runtime $runtime"
    section "Containers under Docker, with $name as their runtime"

    step "Start a private dockerd that knows $name"
    start_docker
    run "\"$runtime\"" "docker info --format '{{json .Runtimes}}'"
    tick "docker $(docker version --format '{{.Server.Version}}') on cgroup v$(docker info --format '{{.CgroupVersion}}') ($(docker info --format '{{.CgroupDriver}}'))"

    step "Import an image made on the spot"
    run 'sha256:' "tar -C bundle/rootfs -c . | docker import - $image"
    tick "imported"

    step "docker run: one command"
    run '^hello from Docker$' "$docker_run --rm $image echo hello from Docker"
    tick "ran and went away"

    step "docker run: limits, another user, a read-only root, no capabilities"
    run '^CapEff:\s*0000000000000000$' "$docker_run --rm --memory 64m --pids-limit 50 --user 1000:1000 --read-only --cap-drop ALL $image sh -c 'id -u; touch /x; grep CapEff /proc/self/status; cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes'"
    grep -qx 1000 "$work/output" || fail "the user is not 1000"
    grep -qx 67108864 "$work/output" || fail "the memory limit is not 64 MiB"
    grep -q 'Read-only file system' "$work/output" || fail "the root is writable"
    tick "all in force"

    step "docker run: the exit status comes through"
    run '^status 42$' "$docker_run --rm $image sh -c 'exit 42'; echo status \$?"
    tick "42"

    step "docker run --interactive --tty: a shell at a terminal of 33 rows and 101 columns"
    printf 'sleep 2\nprintf "tty; stty size; exit\\n"\nsleep 2\n' >"$work/typing"
    run '^33 101' "bash typing | script -qec 'stty rows 33 cols 101; $docker_run --rm --interactive --tty $image sh' /dev/null"
    grep -q '^/dev/pts/0' "$work/output" || fail "no terminal"
    tick "a terminal of its own, with the size of the caller's"

    step "docker run --detach: a container that counts"
    run '^[0-9a-f]{64}$' "$docker_run --detach --name counter $image sh -c 'trap \"echo bye; exit 7\" TERM; i=0; while :; do echo \$((i += 1)); sleep 0.1; done'"
    tick "running"

    step "docker exec: a process beside it"
    run 'PID +USER' "docker exec counter ps"
    run '^status 3$' "docker exec counter sh -c 'exit 3'; echo status \$?"
    tick "joined, and its exit status came back"

    step "docker pause and unpause"
    run '' "docker pause counter"
    run '^paused$' "docker inspect --format '{{.State.Status}}' counter"
    paused_counter_stands || fail "it counts although it is paused"
    tick "it has stopped counting"
    run '' "docker unpause counter"
    run '^running$' "docker inspect --format '{{.State.Status}}' counter"
    if paused_counter_stands; then fail "it does not count again"; fi
    tick "it counts again"

    step "docker stop: SIGTERM, and the program's own last word"
    run '' "docker stop counter"
    run '^exited 7$' "docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' counter"
    run '^bye$' "docker logs --tail 1 counter"
    tick "ended by itself"

    step "docker rm: nothing is left"
    run '^counter$' "docker rm counter"
    run '^0$' "docker ps --all --quiet | wc -l"
    tick "deleted"
}

alone
with_docker
