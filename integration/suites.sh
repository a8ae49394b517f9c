#!/usr/bin/env bash
# Runs every test suite against one runtime binary, each to its end, and sums up: `N passed, N failed`.
# A suite that does not compile, is killed, or reports no result counts as failed.
#
#   ORLOP=/path/to/orlop integration/suites.sh
set -euo pipefail
cd "$(dirname "$0")/.."

ORLOP=$(realpath -e "${ORLOP:-out/orlop}")
# Two names for one thing: the conformance checks run against any runtime, and call it that.
export ORLOP RUNTIME=$ORLOP

if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "test: the kernel tests need root, and there is no sudo: run \`make test\` as root" >&2; exit 1; }
    # Cargo compiles as the user; only the test programs run as root.
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E"
fi

log=$(mktemp)
job=
trap '[ -z "$job" ] || kill -- -"$job"; rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
passed=0 failed=0 broken=()

suite() { # NAME COMMAND...
    local name=$1 status=0 p f results
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    # Through a file, not a pipe: a process that a failed test leaves behind would hold a pipe open, and all would wait for it.
    : >"$log"
    # As a job: without, it would start with SIGINT ignored, and hand that down to every program under test.
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    set +m
    job=$!
    tail --pid=$job --sleep-interval=0.5 --lines=+1 --follow "$log"
    wait $job || status=$?
    job=
    # "test result: ok. 12 passed; 0 failed; ..." is what both libtest and libtest-mimic end with.
    read -r results p f < <(awk '/^test result:/ { n++; for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
                                 END { print n + 0, p + 0, f + 0 }' "$log")
    passed=$((passed + p)) failed=$((failed + f))
    if [ "$results" = 0 ] || [ "$p" = 0 ] || { [ "$status" != 0 ] && [ "$f" = 0 ]; }; then
        broken+=("$name (exit status $status, $p passed)")
    fi
}

suite unit cargo test --workspace --exclude orlop-conformance --exclude orlop-integration --no-fail-fast
suite conformance cargo test -p orlop-conformance --no-fail-fast
suite docker cargo test -p orlop-integration --no-fail-fast

printf '\n'
for name in "${broken[@]}"; do printf 'suite broken: %s\n' "$name"; done
printf '%d passed, %d failed\n' "$passed" $((failed + ${#broken[@]}))
[ $((failed + ${#broken[@]})) = 0 ]
