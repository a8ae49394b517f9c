//! The flags of `checkpoint` and `restore`.

use super::verbs::{list, path, switch, text};
use super::{bundle, file, on, string, strings_of};
use crate::console::Socket;
use crate::criu::rpc::{CgroupMode, NetworkLock};
use crate::error::{On, Result, invalid};
use crate::ops::{CheckpointOptions, CreateOptions, CriuOptions, RestoreOptions};
use clap::{Arg, ArgMatches, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

pub(super) const DETAILS: &str = "Needs CRIU 3.15 or newer. Its settings can be changed by a file: that of the annotation org.criu.config,\n\
                                  else /etc/criu/orlop.conf, else /etc/criu/runc.conf.";
pub(super) const RESTORE_DETAILS: &str = "The configuration is that of the bundle, not of the checkpoint. CRIU enters the root file system in a way of\n\
                                          its own, to which --no-pivot makes no difference.";

/// Where the images are without `--image-path`, in the working directory.
const IMAGES: &str = "checkpoint";

const NETWORK_LOCKS: &[(&str, NetworkLock)] =
    &[("iptables", NetworkLock::Iptables), ("nftables", NetworkLock::Nftables), ("skip", NetworkLock::Skip)];

fn shared_flags() -> Vec<Arg> {
    vec![
        path("image-path", "the directory of CRIU's image files (default: \"checkpoint\" in the current directory)"),
        path("work-path", "the directory of CRIU's log and work files (default: that of the images)"),
        switch("tcp-established", "keep established TCP connections"),
        switch("ext-unix-sk", "allow unix sockets that are connected to the outside"),
        switch("shell-job", "allow processes whose session's leader is outside"),
        switch("file-locks", "keep file locks"),
        text("manage-cgroups-mode", "what to do about cgroups: soft, full, strict or ignore (default: soft)"),
        list("empty-ns", "make this namespace, and leave out what is in it: network (as is always done)"),
        switch("auto-dedup", "punch out of the images what is there twice, or was read"),
        switch("lazy-pages", "fetch memory when it is used (userfaultfd)"),
        text("network-lock", "how to hold back packets meanwhile: iptables, nftables or skip (default: CRIU's choice)"),
    ]
}

pub(super) fn flags() -> Vec<Arg> {
    let mut flags = shared_flags();
    flags.extend([
        path("parent-path", "the images of the pre-dump before, relative to --image-path"),
        switch("leave-running", "let the container run on"),
        switch("tcp-skip-in-flight", "leave out TCP connections that are being made"),
        switch("link-remap", "give files that were removed while they were open a name again"),
        text("status-fd", "an fd that gets a NUL when the memory can be fetched from --page-server")
            .value_parser(value_parser!(i32))
            .default_value("-1"),
        text("page-server", "ADDRESS:PORT to send the memory to, or with --lazy-pages to serve it on"),
        switch("pre-dump", "write the memory alone, and let the container run on"),
    ]);
    flags
}

pub(super) fn restore_flags() -> Vec<Arg> {
    let mut flags = shared_flags();
    flags.extend([
        path("bundle", "the bundle directory (default: the current directory)").short('b'),
        path("console-socket", "an AF_UNIX socket that receives the master of the container's terminal"),
        path("pid-file", "a file to write the process id to"),
        switch("detach", "return when the container runs").short('d'),
        switch("no-subreaper", "leave orphans of the container to the host's init"),
        switch("no-pivot", "taken for the sake of callers"),
        switch("tcp-close", "restore TCP connections as closed"),
        text("lsm-profile", "another security profile, as TYPE:NAME"),
        text("lsm-mount-context", "another SELinux context for mounts"),
    ]);
    flags
}

pub(super) fn options(flags: &ArgMatches, id: String) -> Result<CheckpointOptions> {
    let fd = flags.get_one("status-fd").copied().filter(|fd: &i32| *fd >= 0);
    Ok(CheckpointOptions {
        id,
        criu: criu_options(flags)?,
        parent_path: flags.get_one::<OsString>("parent-path").filter(|p| !p.is_empty()).map(PathBuf::from),
        leave_running: on(flags, "leave-running"),
        tcp_skip_in_flight: on(flags, "tcp-skip-in-flight"),
        link_remap: on(flags, "link-remap"),
        pre_dump: on(flags, "pre-dump"),
        status_fd: fd,
        page_server: string(flags, "page-server").map(|text| page_server(&text)).transpose()?,
    })
}

pub(super) fn restore_options(flags: &ArgMatches, id: String) -> Result<RestoreOptions> {
    Ok(RestoreOptions {
        create: CreateOptions {
            id,
            bundle: bundle(flags)?,
            config: None,
            console_socket: file(flags, "console-socket")?.map(Socket::Path),
            pidfd_socket: None,
            pid_file: file(flags, "pid-file")?,
            no_pivot: on(flags, "no-pivot"),
            no_new_keyring: true,
            preserve_fds: 0,
        },
        criu: criu_options(flags)?,
        tcp_close: on(flags, "tcp-close"),
        lsm_profile: string(flags, "lsm-profile"),
        lsm_mount_context: string(flags, "lsm-mount-context"),
        detach: on(flags, "detach"),
        no_subreaper: on(flags, "no-subreaper"),
    })
}

fn criu_options(flags: &ArgMatches) -> Result<CriuOptions> {
    for namespace in strings_of(flags, "empty-ns") {
        if namespace != "network" {
            return Err(invalid("--empty-ns", format!("namespace {namespace:?} is not supported: only network is")));
        }
    }
    let mode = string(flags, "manage-cgroups-mode").unwrap_or_default();
    let mode = one_of(CgroupMode::NAMES, &mode).ok_or_else(|| {
        invalid("--manage-cgroups-mode", "invalid manage-cgroups-mode value")
            .hint("soft, full, strict and ignore are there")
    })?;
    let lock = string(flags, "network-lock").map(|text| {
        one_of(NETWORK_LOCKS, &text).ok_or_else(|| invalid("--network-lock", "must be iptables, nftables or skip"))
    });
    let images = match file(flags, "image-path")? {
        Some(images) => images,
        None => std::env::current_dir().on("getcwd", "")?.join(IMAGES),
    };
    Ok(CriuOptions {
        image_path: images,
        work_path: file(flags, "work-path")?,
        tcp_established: on(flags, "tcp-established"),
        ext_unix_sk: on(flags, "ext-unix-sk"),
        shell_job: on(flags, "shell-job"),
        file_locks: on(flags, "file-locks"),
        lazy_pages: on(flags, "lazy-pages"),
        auto_dedup: on(flags, "auto-dedup"),
        manage_cgroups_mode: mode,
        network_lock: lock.transpose()?,
    })
}

fn one_of<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// `ADDRESS:PORT`; an IPv6 address in brackets.
fn page_server(text: &str) -> Result<(String, u16)> {
    let usage = || invalid("--page-server", "Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let inner = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    let address = inner.unwrap_or(address);
    if address.is_empty() || port.is_empty() || inner.is_none() && address.contains(':') {
        return Err(usage());
    }
    let port = port.parse().ok().filter(|port| *port != 0);
    Ok((address.to_string(), port.ok_or_else(|| invalid("--page-server", "Invalid port number"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let good = |text, address: &str, port| assert_eq!(page_server(text).unwrap(), (address.to_string(), port));
        good("0.0.0.0:27277", "0.0.0.0", 27277);
        good("host.example:1", "host.example", 1);
        good("[::1]:80", "::1", 80);
        for bad in ["", "host", "host:", ":1", "::1:80", "[]:1", "host:0", "host:65536", "host:x"] {
            let e = page_server(bad).unwrap_err().to_string();
            assert!(e.starts_with("--page-server: "), "{bad}: {e}");
        }
    }
}
