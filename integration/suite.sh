# shellcheck shell=bash
# Runs suites of tests, each to its end, and sums up. Sourced by suites.sh and by testhost/suites.sh, which say before:
#
#   HOST              what the host of the tests is called in the results
#   version PACKAGE   prints the version that it has of a Debian package
#
# A suite that is killed, or reports no result, counts as failed. Every test is a line in out/results/HOST.tsv:
# engine and its version, host, suite, test, and ok, known (a failure that the suite lists with its reason), ignored or FAILED. The
# file is there when all have run; of a PART of the suites it is HOST.tsv.part.

# A suite's first word is its engine, if it has one; the Debian package tells its version.
declare -Ar ENGINES=([docker]=docker.io [compose]=docker-compose [swarm]=docker.io [containerd]=containerd [cri]=containerd [podman]=podman)

results=out/results/$HOST.tsv
mkdir -p "$(dirname "$results")"
rows=$(mktemp)
log=$(mktemp)
job=
passed=0 failed=0 broken=() why=()

# Ends the suite that runs, and removes its log and the rows. For the caller's trap on EXIT.
end_suite() {
    [ -z "$job" ] || kill -- -"$job" || true
    rm -f "$log" "$rows"
}

engine() { # SUITE
    local package=${ENGINES[${1%%-*}]:-} number
    [ -n "$package" ] || { echo runtime; return; }
    number=$(version "$package")
    echo "${package%.io} ${number%%[-+~]*}"
}

tests_of() { # SUITE LOG: the tests of the log, as `suite test result`
    awk -v suite="$1" '
        /^==> program / { suite = $3 }
        match($0, /deps\/[a-z_]+-[0-9a-f]+\)/) { suite = substr($0, RSTART + 5); sub(/-[0-9a-f]+\)$/, "", suite) }
        # What a test says may come between its name and its result.
        match($0, /^test .* \.\.\. ?/) {
            at = index($0, " ... "); test = substr($0, 6, at - 6); sub(/ +$/, "", test); gsub(/ /, "_", test); $0 = substr($0, at + 5)
            if (match($0, /^(ok|FAILED|ignored)/)) { print suite, test, substr($0, 1, RLENGTH); test = "" }
        }
        test != "" && match($0, /(^|[^A-Za-z_])(ok|FAILED|ignored)$/) { sub(/.*[^A-Za-z]/, ""); print suite, test, $0; test = "" }
        /^(ok|known|ignored|FAILED) +[^ :]+::[^ ]+ \(/ { print suite, $2, $1 }' "$2"
}

reasons() { # LOG: the first lines of what each failed test of the log said: a log may be kept by its end alone
    awk '/^FAILED +[^ :]+::/ { print substr($0, 1, 300); left = 0 }
         /^---- .* ----$/ { print; left = 3; next }
         /^failures:$/ { left = 0 }
         left && NF && !/^thread .* panicked at|^note: run with/ { print "    " substr($0, 1, 300); left-- }' "$1"
}

# NAME LOG STATUS SECONDS: counts what a suite has left in its log.
tally() {
    local name=$1 log=$2 status=$3 seconds=$4 p f i count program test result n=0
    # "test result: ok. 12 passed; 0 failed; ..." is what libtest, libtest-mimic and conformance end with.
    read -r count p f i < <(awk '/^test result:/ { n++; for (i = 2; i <= NF; i++) if ($i ~ /^(passed|failed|ignored)/) sum[substr($i, 1, 1)] += $(i-1) }
                               END { print n + 0, sum["p"] + 0, sum["f"] + 0, sum["i"] + 0 }' "$log")
    passed=$((passed + p)) failed=$((failed + f))
    # All are empty if there is no log.
    if [ "${count:-0}" = 0 ] || [ "${p:-0}" = 0 ] || { [ "$status" != 0 ] && [ "$f" = 0 ]; }; then
        broken+=("$name (exit status $status, $p passed)")
    fi
    mapfile -t -O ${#why[@]} why < <(reasons "$log")
    local -A engines=()
    while read -r program test result; do
        [ -n "${engines[$program]:-}" ] || engines[$program]=$(engine "$program")
        printf '%s\t%s\t%s\t%s\t%s\n' "${engines[$program]}" "$HOST" "$program" "$test" "$result" >>"$rows"
        n=$((n + 1))
    done < <(tests_of "$name" "$log")
    [ $n = $((p + f + i)) ] || broken+=("$name ($n tests are named, $((p + f + i)) are counted)")
    printf '==> %s: %d passed, %d failed, %d s\n' "$name" "$p" "$f" "$seconds"
}

# NAME COMMAND...: with cargo, which runs several programs, a suite is called by the name of the program.
suite() {
    local name=$1 status=0 began=$SECONDS
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
    tally "$name" "$log" $status $((SECONDS - began))
}

# Prints the sum; fails if anything has.
sum() {
    local all=$((failed + ${#broken[@]})) name
    results+=${PART:+.part}
    sort -o "$results" "$rows"
    printf '\n'
    [ ${#why[@]} = 0 ] || printf '%s\n' "${why[@]}"
    for name in "${broken[@]}"; do printf 'suite broken: %s\n' "$name"; done
    printf 'every test: %s\n%d passed, %d failed\n' "$results" "$passed" "$all"
    [ "$all" = 0 ]
}
