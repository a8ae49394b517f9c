//! bpf(2): programs of type CGROUP_DEVICE; seccomp(2): filters with and without a listener.
