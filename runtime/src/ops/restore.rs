//! `restore`: a container from the images of a checkpoint.
//!
//! Everything but its processes is made as by `create`, from the configuration of the bundle; CRIU's process is born into the
//! container's cgroups, and makes the container's processes as our children.

use super::create::{CgroupGuard, Creating, hierarchies};
use super::{Global, RestoreOptions, checkpoint, delete, start};
use crate::cgroup::{self, Cgroup, delegate};
use crate::config::{self, Config};
use crate::console::{self, Process};
use crate::criu::external::{self, is_bind, is_cgroup};
use crate::criu::images::Images;
use crate::criu::place::{Place, Point};
use crate::criu::rpc::{self, Kind as Request, Notify, opt};
use crate::criu::wire::Message;
use crate::criu::{Criu, Setup};
use crate::error::{Error, Kind, On, Result, invalid};
use crate::plan::{c_string, destination};
use crate::spawn::{Answers, open_proc};
use crate::state::{self, Container, Reserved};
use crate::{netdevices, notify, resctrl};
use oci_spec::runtime::{LinuxNamespaceType as Ns, Spec};
use orlop_sys::mount::{self, Attr, attr};
use orlop_sys::process::Exit;
use orlop_sys::signal::Signals;
use orlop_sys::{Errno, file, network, process, socket};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

const LOG: &CStr = c"restore.log";

/// Restores the container. The result is the exit status: 0 when detached, else the process's, 128 + n for signal n.
pub fn restore(global: &Global, options: &RestoreOptions) -> Result<u8> {
    let foreground = !options.detach;
    // Before the process is made, so that no signal is lost between its start and the loop.
    let signals = if foreground { Some(Signals::block().on("signalfd", "")?) } else { None };
    let subreaper = foreground && !options.no_subreaper;
    if subreaper {
        process::set_subreaper().on("prctl PR_SET_CHILD_SUBREAPER", "")?;
    }
    let (container, init, master) = make(global, options)?;
    if let Err(e) = start::poststart(&container) {
        return Err(delete::destroy(&container).err().into_iter().fold(e, |e, other| e.also(other)));
    }
    let Some(signals) = signals else { return Ok(0) };
    let pid = container.saved.init_process_pid;
    let process = Process { pid, pidfd: init.as_fd() };
    let status = console::foreground(&signals, &process, master, subreaper, None);
    delete::destroy(&container)?;
    status
}

/// A running container, its pidfd and its terminal when no socket has it.
type Running = (Container, OwnedFd, Option<console::Terminal>);

fn make(global: &Global, options: &RestoreOptions) -> Result<Running> {
    let create = &options.create;
    state::check_id(&create.id)?;
    let config = Config::load(&create.bundle.join("config.json"))?;
    config.check()?;
    let terminal = config.process()?.terminal().unwrap_or(false);
    super::check_terminal(terminal, create.console_socket.is_some(), options.detach)?;
    let images = Images::open(&options.criu.image_path, options.criu.work_path.as_deref())?;

    let rootfs = config::rootfs(&config.spec, &create.bundle)?;
    let linux = config.spec.linux().as_ref();
    let host = cgroup::Host::default();
    let user = super::user_manager(global);
    let asked =
        cgroup::Request { driver: global.cgroups, user, id: &create.id, rootless: global.rootless, spec: &config.spec };
    let cgroup = host.plan(&asked)?;
    let reserved = Reserved::new(&global.root, &create.id)?;
    reserved.keep_config(&config, &asked)?;
    // Whether the container had one when it was dumped is in the images alone: without it CRIU would restore no such container.
    notify::prepare(&reserved.dir)?;
    let place = place(&config.spec, &create.bundle, &rootfs, &reserved)?;

    let class = match linux.and_then(|l| l.intel_rdt().as_ref()) {
        Some(rdt) => {
            let at = resctrl::mounted().map_err(|e| e.at("linux.intelRdt"))?;
            Some(resctrl::create(&at, rdt, &create.id)?)
        }
        None => None,
    };
    // Limits stand before the first process is inside.
    let mut cgroup = CgroupGuard { cgroup, armed: false };
    let entry = cgroup.cgroup.create(linux.and_then(|l| l.resources().as_ref()))?;
    cgroup.armed = true;
    let owner = delegate::owner(&config.spec);
    owner.map_or(Ok(()), |uid| cgroup.cgroup.give(uid))?;
    let mut request = Message::new();
    let fds = external::restore_namespaces(&config.spec, &mut request)?;
    images.name(LOG, &mut request)?;
    images.inherit_descriptors(&mut request)?;
    checkpoint::common(&options.criu, &config.spec, &mut request);

    let mut criu = Criu::start(&Setup {
        images: &images,
        fds: &fds,
        entry: Some(&entry),
        place: place.as_ref(),
        // Those of the foreground are blocked by now.
        stoppable: !options.detach,
    })?;
    require(&criu, options)?;
    flags(options, &mut request);
    let root = place.as_ref().map_or(rootfs.as_path(), |place| path(&place.at));
    request.text(opt::ROOT, root.as_os_str().as_bytes());
    for (controllers, path) in cgroup::of(criu.pid())? {
        request.message(opt::CG_ROOT, &rpc::cgroup_root(&controllers, &path));
    }
    mounts(&config.spec, &create.bundle, &rootfs, &reserved, cgroup.cgroup.paths(), &mut request)?;

    let proc = open_proc()?;
    let mut answers = Creating {
        config: &config,
        options: create,
        reserved: &reserved,
        rootfs,
        cgroup: cgroup.cgroup.as_ref(),
        proc: proc.as_fd(),
        class: class.as_ref(),
        devices: None,
        subgroup: "",
        owner,
        asked: true,
        saved: None,
        master: None,
    };
    let request = rpc::request(Request::Restore, Some(&request), false);
    let done = criu.request(&request, &mut |notify, fd| answer(&mut answers, notify, fd));
    let (saved, master, devices) = (answers.saved.take(), answers.master.take(), answers.devices.take());
    // A CRIU that was killed has not ended what it had begun.
    let begun = saved.as_ref().map(|saved| saved.init_process_pid);
    let restored = done.as_ref().map(|response| response.pid).ok().or(begun);
    let done = done.and_then(|response| criu.end(true).map(|()| response.pid));
    let finished = done.map_err(|e| checkpoint::explain(e, &images, LOG)).and_then(|pid| {
        let saved = saved.filter(|saved| saved.init_process_pid == pid);
        let mut saved =
            saved.ok_or_else(|| Error::new(Kind::System, "criu told of another process than it restored"))?;
        let pidfd = process::pidfd_open(pid).on("pidfd_open", pid)?;
        (saved.restored_time, saved.making) = (in_other_time(&config.spec, pid)?, false);
        reserved.save(&saved)?;
        unplace(&reserved)?;
        super::tell(pid, pidfd.as_fd(), create.pid_file.as_deref(), None)?;
        Ok((saved, pidfd))
    });
    let (saved, pidfd) = finished.inspect_err(|_| end(restored, cgroup.cgroup.as_ref()))?;
    devices.into_iter().for_each(netdevices::Moved::commit);
    class.into_iter().for_each(resctrl::Made::commit);
    cgroup.armed = false;
    Ok((reserved.into_container(saved), pidfd, master))
}

/// Ends what CRIU has restored. The first error is what the user must hear.
fn end(pid: Option<i32>, cgroup: &dyn Cgroup) {
    let _ = cgroup.signal(process::SIGKILL);
    let Some(Ok(pidfd)) = pid.map(process::pidfd_open) else { return };
    // Only a child of ours is of this container, whatever CRIU has told.
    if process::wait(pidfd.as_fd(), false).is_ok() {
        let _ = process::pidfd_signal(pidfd.as_fd(), process::SIGKILL);
        let _ = process::wait(pidfd.as_fd(), true);
    }
}

/// What CRIU got later than the version without which nothing is done.
fn require(criu: &Criu, options: &RestoreOptions) -> Result<()> {
    checkpoint::require(criu, &options.criu)?;
    for (flag, given) in [("--lsm-profile", &options.lsm_profile), ("--lsm-mount-context", &options.lsm_mount_context)]
    {
        if given.is_some() {
            criu.require(flag, 31_600)?;
        }
    }
    Ok(())
}

fn flags(options: &RestoreOptions, m: &mut Message) {
    m.number(opt::EVASIVE_DEVICES, true).number(opt::RST_SIBLING, true).number(opt::TCP_CLOSE, options.tcp_close);
    for (field, given) in
        [(opt::LSM_PROFILE, &options.lsm_profile), (opt::LSM_MOUNT_CONTEXT, &options.lsm_mount_context)]
    {
        if let Some(text) = given {
            m.text(field, text);
        }
    }
}

fn mounts(
    spec: &Spec,
    bundle: &Path,
    rootfs: &Path,
    reserved: &Reserved,
    cgroups: &cgroup::Paths,
    m: &mut Message,
) -> Result<()> {
    let name = c_string(rootfs.as_os_str().as_bytes(), "root.path")?;
    let root = file::open(&name, file::O_PATH | file::O_DIRECTORY, 0).on("open", rootfs.display())?;
    let hierarchies = hierarchies(&cgroup::Host::default(), spec.mounts().as_deref().unwrap_or_default())?;
    let state = &reserved.dir;
    let root = root.as_fd();
    external::Container { spec, bundle, rootfs, state, cgroups, hierarchies: &hierarchies, root }.restore(m)
}

/// The directory in the state directory where CRIU finds the root file system.
const PLACE: &str = "criu-root";

/// Where CRIU is to find the root file system; without a mount namespace it restores into the host's.
fn place(spec: &Spec, bundle: &Path, rootfs: &Path, reserved: &Reserved) -> Result<Option<Place>> {
    if super::namespace(spec, Ns::Mount).is_none() {
        return Ok(None);
    }
    let at = reserved.dir.join(PLACE);
    std::fs::DirBuilder::new().mode(0o700).create(&at).on("mkdir", at.display())?;
    Ok(Some(Place {
        rootfs: c_string(rootfs.as_os_str().as_bytes(), "root.path")?,
        at: c_string(at.as_os_str().as_bytes(), "--root")?,
        points: points(spec, bundle, rootfs)?,
    }))
}

/// Removes the directory: the mount on it was one of CRIU's namespace alone, which has gone.
fn unplace(reserved: &Reserved) -> Result<()> {
    let at = reserved.dir.join(PLACE);
    match std::fs::remove_dir(&at) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.on("rmdir", at.display()),
    }
}

/// The mount points, which CRIU does not make. Those on a tmpfs come back with its contents, those of cgroups too.
fn points(spec: &Spec, bundle: &Path, rootfs: &Path) -> Result<Vec<Point>> {
    let list = spec.mounts().as_deref().unwrap_or_default();
    let tmpfs = |m: &&oci_spec::runtime::Mount| m.typ().as_deref() == Some("tmpfs") && !is_bind(m);
    let above: Vec<String> = list.iter().filter(tmpfs).map(|m| destination(m, rootfs)).collect();
    let mut points = Vec::new();
    for (i, m) in list.iter().enumerate() {
        let place = destination(m, rootfs);
        let on_tmpfs = above.iter().any(|t| place.strip_prefix(t.as_str()).is_some_and(|rest| rest.starts_with('/')));
        if is_cgroup(m) && !is_bind(m) || on_tmpfs {
            continue;
        }
        let field = format!("mounts[{i}].source");
        let source = is_bind(m).then(|| bundle.join(m.source().as_deref().unwrap_or(Path::new(""))));
        let directory = match &source {
            Some(source) => std::fs::metadata(source).on("stat", source.display()).map_err(|e| e.at(&field))?.is_dir(),
            None => true,
        };
        points.push(Point {
            path: c_string(place, format!("mounts[{i}].destination"))?,
            directory,
            source: source.map(|source| c_string(source.as_os_str().as_bytes(), &field)).transpose()?,
            index: u16::try_from(i).map_err(|_| invalid("mounts", "are too many"))?,
        });
    }
    Ok(points)
}

/// What CRIU wants of us on the way.
fn answer(creating: &mut Creating, notify: &Notify, fd: Option<OwnedFd>) -> Result<()> {
    match (notify.script.as_str(), fd) {
        // Namespaces are made, nothing is in them yet.
        ("setup-namespaces", _) => {
            if super::namespace(&creating.config.spec, Ns::Network) == Some(None) {
                let socket = prepare_network(notify.pid)?;
                if !netdevices::list(&creating.config.spec).is_empty() {
                    creating.devices(notify.pid, socket)?;
                }
            }
            creating.hooks(notify.pid)
        }
        // All is there, and nothing of it runs yet.
        ("post-restore", _) => {
            // A version of CRIU, or a container, without namespaces.
            if creating.saved.is_none() {
                creating.hooks(notify.pid)?;
            }
            read_only_root(creating, notify.pid)
        }
        ("orphan-pts-master", Some(master)) => creating.console(master),
        _ => Ok(()),
    }
}

/// A network namespace is restored empty. As in one that was made for a container, the loopback interface is set up; the
/// result is a socket in it, for the devices that are to move there.
fn prepare_network(pid: i32) -> Result<OwnedFd> {
    const WHAT: &str = "the restored network namespace";
    let pidfd = process::pidfd_open(pid).on("pidfd_open", pid)?;
    let (ours, theirs) = socket::pair().on("socketpair", "")?;
    let child = process::clone3(0, None, || {
        let made = process::setns(pidfd.as_fd(), process::CLONE_NEWNET).and_then(|()| {
            network::loopback_up()?;
            network::route_socket()
        });
        let (errno, fd) = match &made {
            Ok(fd) => (0, Some(fd.as_fd())),
            Err(errno) => (*errno as i32, None),
        };
        u8::from(socket::send(theirs.as_fd(), &errno.to_ne_bytes(), fd).is_err())
    })
    .on("clone3 for", WHAT)?;
    drop(theirs);
    let mut errno = [0; 4];
    let answer = socket::recv(ours.as_fd(), &mut errno);
    process::wait(child.pidfd.as_fd(), true).on("waitid", WHAT)?;
    match answer.on("recvmsg about", WHAT)? {
        (_, Some(fd)) => Ok(fd),
        (4, None) => Err(Errno::from_raw(i32::from_ne_bytes(errno)).on("set up", WHAT)),
        _ => Err(Error::new(Kind::System, "set up the restored network namespace: its process was killed")),
    }
}

/// CRIU before 4.2 leaves the root file system, and what is bound of it, as writable as it got it from us. What it says is not trusted: the
/// process must be a child of ours, and the root of its mount namespace that of the container, or nothing is changed.
fn read_only_root(creating: &Creating, pid: i32) -> Result<()> {
    const WHAT: &str = "the restored root file system";
    let spec = &creating.config.spec;
    let asked = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    if !asked || super::namespace(spec, Ns::Mount).is_none() {
        return Ok(());
    }
    let refused = |why| Error::new(Kind::System, format!("{WHAT} cannot be made read-only: {why}")).at("root.readonly");
    let pidfd = process::pidfd_open(pid).on("pidfd_open", pid)?;
    if !matches!(process::wait(pidfd.as_fd(), false), Ok(None)) {
        return Err(refused("criu told of a process that is not the container's"));
    }
    if !in_other("mnt", pid)? {
        return Err(refused("the checkpoint is of a container without a mount namespace"));
    }
    let expected = std::fs::metadata(&creating.rootfs).on("stat", creating.rootfs.display())?;
    let bound = spec.linux().iter().filter_map(|linux| linux.readonly_paths().as_ref()).flatten();
    let bound = bound.map(|path| c_string(path.as_str(), "linux.readonlyPaths")).collect::<Result<Vec<_>>>()?;
    let read_only = Attr { set: attr::RDONLY, ..Attr::default() };
    let child = process::clone3(0, None, || {
        let made = process::setns(pidfd.as_fd(), process::CLONE_NEWNS).and_then(|()| {
            // The namespace's root has become ours.
            let root = file::open(c"/", file::O_PATH | file::O_DIRECTORY, 0)?;
            let found = file::fstat(root.as_fd())?;
            if (found.dev, found.ino) != (expected.dev(), expected.ino()) {
                return Err(Errno::EXDEV);
            }
            mount::set_attr(root.as_fd(), &read_only, false)?;
            for path in &bound {
                let there = file::openat2(root.as_fd(), path, file::O_PATH, 0, file::IN_ROOT);
                match there.and_then(|fd| mount::set_attr(fd.as_fd(), &read_only, false)) {
                    // What is not there was not bound.
                    Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Ok(())
        });
        made.err().map_or(0, |errno| errno as i32 as u8)
    })
    .on("clone3 for", WHAT)?;
    match process::wait(child.pidfd.as_fd(), true).on("waitid", WHAT)? {
        Some(Exit::Status(0)) => Ok(()),
        Some(Exit::Status(errno)) => Err(match Errno::from_raw(errno.into()) {
            Errno::EXDEV => refused("the checkpoint is of a container with another one"),
            Errno::EBUSY => refused("a file of it was open for writing"),
            errno => errno.on("make read-only", WHAT).at("root.readonly"),
        }),
        _ => Err(refused("the process that was to do it was killed")),
    }
}

/// Whether CRIU has made a time namespace, so that the clocks of the processes go on from where they were.
fn in_other_time(spec: &Spec, pid: i32) -> Result<bool> {
    if super::namespace(spec, Ns::Time).is_some() {
        return Ok(false);
    }
    in_other("time", pid)
}

/// Whether a process is in another namespace of this kind than we are.
fn in_other(kind: &str, pid: i32) -> Result<bool> {
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    match (of("self"), of(&pid.to_string())) {
        // A kernel without them.
        (Err(_), _) => Ok(false),
        (Ok(ours), Ok(theirs)) => Ok(ours != theirs),
        (Ok(_), Err(e)) => Err(e).on("readlink", format!("\"/proc/{pid}/ns/{kind}\"")),
    }
}

fn path(text: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(text.to_bytes()))
}
