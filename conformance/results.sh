#!/usr/bin/env bash
# Runs the conformance checks against several runtimes and writes RESULTS.md, their results side by side. Needs root, or sudo.
#
#   conformance/results.sh CONFORMANCE RUNTIME...      the program, and the runtimes' binaries or names
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
program=$1
shift

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
files=()
for runtime; do
    view=()
    # crun refuses a hybrid of both versions: show it the v1 hierarchies alone.
    if [ -d /sys/fs/cgroup/unified ] && [[ $("$runtime" --version) == crun* ]]; then view=(--cgroups v1); fi
    file=$scratch/${#files[@]}.json
    status=0
    as_root "$program" --runtime "$runtime" --format json "${view[@]}" >"$file" || status=$?
    # 1 is a check that failed: the table has it. Anything else has no results.
    [ $status -le 1 ] || exit $status
    files+=("$file")
done

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then cgroups=v2; elif [ -d /sys/fs/cgroup/unified ]; then cgroups="hybrid (v1 alone for crun)"; else cgroups=v1; fi
results=$(dirname "$0")/RESULTS.md
{
    cat <<EOF
# Conformance: results

Written by \`make results\`; the checks and what they mean: [README.md](README.md). Linux $(uname -r | cut -d- -f1), cgroups $cgroups.
A section is a heading of the [runtime specification 1.3](https://github.com/opencontainers/runtime-spec/tree/v1.3.0), or the part of runc's
command line that callers rely on. "no": the check fails, and the last tables say what the runtime does instead; against a section of the
specification that is a bug of the runtime, against runc's command line a difference from it. "–": not run, for this host lacks what it needs, or
because it is a promise of orlop's own.

EOF
    "$program" compare "${files[@]}"
} >"$results.new"
mv "$results.new" "$results"
sed -n '/^| runtime/,/^$/p' "$results"
# A failure that is not known is the suite's affair.
! grep -q '(not known before)' "$results"
