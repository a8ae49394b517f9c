#!/usr/bin/env bash
# Inside the second test host: mounts the host's directory at /share, and runs the jobs that run.sh lays into /share/.spool.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
readonly spool=/share/.spool
shopt -s nullglob

if grep -q 'User Mode Linux' /proc/cpuinfo; then
    poll=0.03
    modprobe -qa overlay veth bridge br_netfilter tun fuse ip_tables iptable_nat iptable_filter ip6_tables ip6table_nat ip6table_filter \
        xt_MASQUERADE xt_conntrack xt_addrtype xt_comment xt_mark
    # This kernel has no NAT in nftables, and pasta does not find its way in it.
    for tables in iptables ip6tables; do update-alternatives --set $tables /usr/sbin/$tables-legacy >/dev/null 2>&1; done
    mkdir -p /etc/containers/containers.conf.d
    printf '[network]\nfirewall_driver="iptables"\ndefault_rootless_network_cmd="slirp4netns"\n' >/etc/containers/containers.conf.d/uml.conf
    mountpoint -q /share || mount -t hostfs -o hostfs=/share none /share
else
    poll=0.1
    modprobe -qa overlay veth bridge br_netfilter 9pnet_virtio 9p virtio_net
    for _ in {1..100}; do
        mountpoint -q /share || mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none share /share && break
        sleep 0.2
    done
fi

run() { # JOB: JOB.run has the user, the limit in seconds and the script
    local job=$1 script=/run/vm-job-${1##*/} user limit status=0
    { read -r user; read -r limit; } <"$job.run"
    tail -n +3 "$job.run" >"$script"
    chmod 644 "$script"
    if [ "$user" = root ]; then
        (cd /root && exec setsid timeout -k 5 "$limit" bash "$script") </dev/null >"$job.out" 2>"$job.err" || status=$?
    else
        timeout -k 5 "$((limit + 30))" systemd-run --user -M "$user@.host" --pipe --wait --quiet --collect --same-dir \
            -p "RuntimeMaxSec=$limit" -p Delegate=yes bash -l "$script" </dev/null >"$job.out" 2>"$job.err" || status=$?
    fi
    rm -f "$script"
    sync "$job.out" "$job.err"
    echo $status >"$job.rc.new"
    sync "$job.rc.new"
    mv "$job.rc.new" "$job.rc"
    rm -f "$job.run"
}

echo "$(uname -r) $(cut -d ' ' -f 1 /proc/uptime)" >"$spool/ready.new"
mv "$spool/ready.new" "$spool/ready"
# Reading from a pipe that nobody writes to is a sleep without a fork.
exec 8<> <(:)
for ((n = 1; ; n++)); do
    for asked in "$spool"/*.cmd; do
        if mv "$asked" "${asked%.cmd}.run" 2>/dev/null; then run "${asked%.cmd}" & fi
    done
    # What a job has written so far shall be seen on the host.
    if [ $((n % 30)) = 0 ]; then
        for running in "$spool"/*.run; do sync "${running%.run}.out" "${running%.run}.err" 2>/dev/null; done
    fi
    read -rt $poll -u 8
done
