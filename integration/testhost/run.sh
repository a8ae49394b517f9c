#!/usr/bin/env bash
# Runs a command in the second test host, with bash; its standard output, standard error and exit status become ours.
# 124: it took longer than allowed, and was ended; 255: the machine is gone. Needs root.
#
#   run.sh [-u USER] [-t SECONDS] COMMAND      as root, or as USER in that user's systemd session; 300 seconds
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/settings.sh"

user=root limit=300
while getopts u:t: option; do
    case $option in
        u) user=$OPTARG ;;
        t) limit=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || die "usage: run.sh [-u USER] [-t SECONDS] COMMAND"
need_root
"$here/boot.sh" status >/dev/null 2>&1 || die "no machine runs in $VM_RUN: run boot.sh start"

# agent.sh has the other half: NAME.cmd asks; NAME.out and NAME.err grow; NAME.rc is the answer.
job=$(tail -n 1 "$VM_RUN/where")/.spool/$(date +%s%N)-$$
: >"$job.out"
: >"$job.err"
chmod 666 "$job.out" "$job.err"
# What follows the output ends when this process does.
sleep infinity &
watched=$!
tail -c +1 -s 0.1 -f --pid="$watched" "$job.out" &
out=$!
tail -c +1 -s 0.1 -f --pid="$watched" "$job.err" >&2 &
err=$!
trap 'kill "$watched"; wait "$watched" "$out" "$err"; rm -f "$job".*' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

printf '%s\n' "$user" "$limit" "$*" >"$job.new"
mv "$job.new" "$job.cmd"
end=$((SECONDS + limit + 60))
for ((n = 1; ; n++)); do
    [ ! -e "$job.rc" ] || break
    if [ $SECONDS -ge $end ] || { [ $((n % 50)) = 0 ] && ! "$here/boot.sh" status >/dev/null 2>&1; }; then
        say "the machine is gone or does not answer" >&2
        exit 255
    fi
    sleep 0.05
done
exit "$(cat "$job.rc")"
