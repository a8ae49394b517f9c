//! `checkpoint`: CRIU writes the images of a container's processes.

use super::{CheckpointOptions, CriuOptions, Global, delete};
use crate::criu::external::{self, root_of};
use crate::criu::images::Images;
use crate::criu::rpc::{self, Kind, Notify, opt};
use crate::criu::wire::Message;
use crate::criu::{Criu, Setup};
use crate::error::{Error, On, Result, invalid};
use crate::state::{Container, Status};
use log::warn;
use oci_spec::runtime::Spec;
use orlop_sys::{fds, file, process};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const LOG: &CStr = c"dump.log";

/// Writes the images of the container; then the container is deleted, unless it is to go on running.
pub fn checkpoint(global: &Global, options: &CheckpointOptions) -> Result<()> {
    let (container, _lock) = Container::locked(&global.root, &options.id)?;
    let status = container.status()?;
    if matches!(status, Status::Created | Status::Stopped) {
        let why = format!("container cannot be checkpointed in {status} state");
        return Err(Error::new(crate::error::Kind::State, why));
    }
    let mut ready = options.status_fd.map(status_fd).transpose()?;
    let images = Images::make(&options.criu.image_path, options.criu.work_path.as_deref())?;
    let dump = dump(&container, options, &images)?;

    let mut criu = Criu::start(&Setup { images: &images, fds: &[], entry: None, place: None, stoppable: false })?;
    check_features(&mut criu, options)?;
    require(&criu, &options.criu)?;
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let request = rpc::request(kind, Some(&dump), false);
    let done = criu.request(&request, &mut |notify: &Notify, _| {
        // The server of lazy pages listens: whoever waits for it may now connect.
        if notify.script == "status-ready"
            && let Some(fd) = ready.take()
        {
            file::write(fd.as_fd(), &[0]).on("write", "").map_err(|e| e.at("--status-fd"))?;
        }
        Ok(())
    });
    let done = done.and_then(|_| criu.end(!options.pre_dump));
    done.map_err(|e| explain(e, &images, LOG))?;

    if !options.leave_running && !options.pre_dump {
        // The images are complete, which is what was asked for; `delete` can be tried again.
        delete::destroy(&container).unwrap_or_else(|e| warn!("the checkpoint is complete, but: {e}"));
    }
    Ok(())
}

/// Options of the request.
fn dump(container: &Container, options: &CheckpointOptions, images: &Images) -> Result<Message> {
    let saved = &container.saved;
    let config = container.config()?;
    let mut m = Message::new();
    images.name(LOG, &mut m)?;
    common(&options.criu, &config.spec, &mut m);
    m.number(opt::PID, saved.init_process_pid).text(opt::ROOT, saved.rootfs.as_os_str().as_bytes());
    for (field, on) in [
        (opt::LEAVE_RUNNING, options.leave_running),
        (opt::TCP_SKIP_IN_FLIGHT, options.tcp_skip_in_flight),
        (opt::LINK_REMAP, options.link_remap),
    ] {
        m.number(field, on);
    }
    if let Some((address, port)) = &options.page_server {
        m.message(opt::PAGE_SERVER, &rpc::page_server(address, *port));
    }
    if let Some(parent) = &options.parent_path {
        images.check_parent(parent)?;
        m.text(opt::PARENT_IMG, parent.as_os_str().as_bytes()).number(opt::TRACK_MEM, true);
    }
    // CRIU stops the processes by the freezer, and not one by one with ptrace(2), between which they could fork.
    if let Some(freezer) = saved.cgroup_paths.get("freezer").or_else(|| v2_alone(container)) {
        m.text(opt::FREEZE_CGROUP, freezer.as_os_str().as_bytes());
    }
    external::dump_namespaces(&config.spec, &mut m)?;
    if !options.pre_dump {
        let root = root_of(saved.init_process_pid)?;
        let hierarchies = super::create::hierarchies(
            &crate::cgroup::Host::default(),
            config.spec.mounts().as_deref().unwrap_or_default(),
        )?;
        let outside = external::Container {
            spec: &config.spec,
            bundle: &saved.bundle,
            rootfs: &saved.rootfs,
            state: &container.dir,
            cgroups: &saved.cgroup_paths,
            hierarchies: &hierarchies,
            root: root.as_fd(),
        };
        outside.dump(&mut m)?;
        images.keep_descriptors(saved.init_process_pid)?;
    }
    Ok(m)
}

fn v2_alone(container: &Container) -> Option<&std::path::PathBuf> {
    container.saved.cgroup_paths.get("").filter(|_| container.saved.cgroup_paths.len() == 1)
}

/// Options of both requests.
pub(super) fn common(options: &CriuOptions, spec: &Spec, m: &mut Message) {
    for (field, on) in [
        (opt::NOTIFY_SCRIPTS, true),
        (opt::ORPHAN_PTS_MASTER, true),
        (opt::MANAGE_CGROUPS, true),
        (opt::SHELL_JOB, options.shell_job),
        (opt::TCP_ESTABLISHED, options.tcp_established),
        (opt::EXT_UNIX_SK, options.ext_unix_sk),
        (opt::FILE_LOCKS, options.file_locks),
        (opt::AUTO_DEDUP, options.auto_dedup),
        (opt::LAZY_PAGES, options.lazy_pages),
    ] {
        m.number(field, on);
    }
    m.number(opt::MANAGE_CGROUPS_MODE, options.manage_cgroups_mode as i64);
    // The engine makes the network, at the restore anew: what is in the namespace is not the container's.
    m.number(opt::EMPTY_NS, process::CLONE_NEWNET);
    if let Some(method) = options.network_lock {
        m.number(opt::NETWORK_LOCK, method as i64);
    }
    if let Some(file) = config_file(spec) {
        m.text(opt::CONFIG_FILE, file);
    }
}

/// CRIU's configuration file, whose settings come before ours: that of the annotation, none if it is empty.
fn config_file(spec: &Spec) -> Option<&str> {
    const OWN: &str = "/etc/criu/orlop.conf";
    const OF_RUNC: &str = "/etc/criu/runc.conf";
    match spec.annotations().as_ref().and_then(|all| all.get("org.criu.config")) {
        Some(file) => Some(file.as_str()).filter(|file| !file.is_empty()),
        None if Path::new(OWN).exists() => Some(OWN),
        None => Some(OF_RUNC),
    }
}

/// What CRIU got later than the version without which nothing is done.
pub(super) fn require(criu: &Criu, options: &CriuOptions) -> Result<()> {
    match options.network_lock {
        Some(_) => criu.require("--network-lock", 31_600),
        None => Ok(()),
    }
}

fn check_features(criu: &mut Criu, options: &CheckpointOptions) -> Result<()> {
    if !options.pre_dump && !options.criu.lazy_pages {
        return Ok(());
    }
    let features = criu.features()?;
    for (flag, wanted, there, what) in [
        ("--pre-dump", options.pre_dump, features.mem_track, "the tracking of changed memory (CONFIG_MEM_SOFT_DIRTY)"),
        ("--lazy-pages", options.criu.lazy_pages, features.lazy_pages, "memory that is fetched when it is used"),
    ] {
        if wanted && !there {
            return Err(invalid(flag, format!("criu or this kernel lacks {what}")));
        }
    }
    Ok(())
}

fn status_fd(fd: i32) -> Result<OwnedFd> {
    fds::adopt_writable(fd).map_err(|_| invalid("--status-fd", format!("{fd} is no open, writable fd of the caller")))
}

/// The error of a request with the end of CRIU's log.
pub(super) fn explain(e: Error, images: &Images, log: &CStr) -> Error {
    let e = if process::euid() == 0 { e } else { e.hint("CRIU needs root") };
    images.errors(log).into_iter().fold(e, Error::also)
}
