//! Compiles an OCI seccomp profile to BPF.
