mount --make-rprivate /
ip link set lo up
exec dockerd --data-root /tmp/integ/d/data --exec-root /tmp/integ/d/exec -H unix:///tmp/integ/d/sock --pidfile /tmp/integ/d/pid --add-runtime orlop=/usr/sbin/runc --cgroup-parent /orlop-it-x --live-restore
