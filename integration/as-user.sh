#!/usr/bin/env bash
# Runs a test program as a user who is nobody else (1000), with ranges of ids, a home and a runtime directory of its own: for engines without root on
# a host that need not have such a user. In a mount namespace: nothing of it is the host's. Needs root, and ORLOP=/path/to/orlop.
#
#   as-user.sh PROGRAM ARGUMENT...
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

if [ -z "${AS_USER_DIR:-}" ]; then
    AS_USER_DIR=$(mktemp -d /tmp/orlop-user.XXXXXX) # which the user can reach, wherever TMPDIR is
    export AS_USER_DIR
    trap 'rmdir "$AS_USER_DIR"' EXIT
    status=0
    unshare --mount --propagation private "$0" "$@" || status=$?
    exit $status
fi

dir=$AS_USER_DIR
mount -t tmpfs -o mode=755 tmpfs "$dir"
install -d -m 700 -o 1000 -g 1000 "$dir/home" "$dir/run" "$dir/tmp"
for file in passwd group subuid subgid; do
    grep -vE '^(tester:|[^:]*:[^:]*:1000:)' "/etc/$file" >"$dir/$file" || true
done
echo "tester:x:1000:1000::$dir/home:/bin/sh" >>"$dir/passwd"
echo 'tester:x:1000:' >>"$dir/group"
for file in subuid subgid; do echo 'tester:100000:65536' >"$dir/$file"; done
for file in passwd group subuid subgid; do mount --bind "$dir/$file" "/etc/$file"; done
# The user need not see where these were built.
install -m 755 "$ORLOP" "$dir/orlop"
install -m 755 "$1" "$dir/program"
cd "$dir/home"
exec setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all env -i PATH="$PATH" HOME="$dir/home" USER=tester \
    XDG_RUNTIME_DIR="$dir/run" TMPDIR="$dir/tmp" ORLOP="$dir/orlop" "$dir/program" "${@:2}"
