//! The child half of the file system: every place inside the container is reached by an fd below the rootfs.
//!
//! The rootfs is hostile at all times, concurrently too: a volume may be shared with a running container. So a path is
//! resolved once, below the root, to an fd (openat2 with RESOLVE_IN_ROOT), and the mount is made on that fd or on `.` after
//! fchdir to it, never on the path again (CVE-2021-30465, CVE-2025-31133, CVE-2025-52881).

use crate::copy_up;
use crate::held::Held;
use crate::hidden::{Hidden, KERNEL_ROOT};
use crate::init::{Fault, InPart, Init, Mounted};
use crate::plan::{BindStep, DeviceStep, MountStep, Step, Target, Tree};
use crate::sync::{Part, Tag};
use orlop_sys::fds::Left;
use orlop_sys::file;
use orlop_sys::mount::{self as sys, Attr, attr};
use orlop_sys::process;
use orlop_sys::{Errno, in_root};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many mounts of a container over one of ours are taken away with it: it must not hold us up by making more.
const STACKED_MOST: u32 = 64;

/// The rootfs while it is being built.
pub struct Rootfs<'a> {
    init: &'a Init<'a>,
    /// The index of the step.
    pub at: u16,
    root: Option<OwnedFd>,
    /// /dev, once the mounts are made: most of what is made singly is in it.
    dev: Option<OwnedFd>,
    /// The tmpfs that was mounted last.
    held: Held<'a>,
    hidden: Hidden,
    /// The caller's, where no step sets another one.
    umask: Option<u32>,
}

impl<'a> Rootfs<'a> {
    /// Before the first step.
    pub fn new(init: &'a Init<'a>) -> Rootfs<'a> {
        Rootfs { init, at: 0, root: None, dev: None, held: Held::default(), hidden: Hidden::default(), umask: None }
    }

    /// The root directory of the container-to-be.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        root(&self.root)
    }

    /// Gives up what it holds, to be closed with all else by [`orlop_sys::fds::close_others`].
    pub fn give_up(&mut self) {
        std::mem::forget((self.root.take(), self.dev.take()));
        self.held.give_up();
        self.hidden.give_up();
    }

    /// One of the steps that are about files.
    pub fn step(&mut self, step: &'a Step) -> Result<(), Fault> {
        match step {
            Step::Propagate(flags) => Ok(sys::mount(None, c"/", None, *flags, None)?),
            Step::PrivateParent(path) => Ok(private_parent(path)?),
            Step::BindRoot(path) => self.bind_root(path),
            Step::OpenRoot(path) => self.open_root(path),
            Step::Mount(m) => self.mount(m),
            Step::Bind(b) => self.bind(b),
            Step::Mounted(target) => self.mount_point(target).map(drop),
            Step::Unmount(target) => self.unmount(target),
            Step::Directory(path) => {
                in_root::mkdir_all(self.fd()?, path)?;
                Ok(())
            }
            Step::Device(d) => self.device(d),
            Step::Symlink(to, at) => self.symlink(to, at),
            Step::Ptmx => self.ptmx(),
            Step::SetAttr(path, attr, below) => {
                if let Some(dir) = self.held.itself(path) {
                    return Ok(sys::set_attr(dir, attr, *below)?);
                }
                let place = file::openat2(self.fd()?, path, file::O_PATH, 0, file::IN_ROOT).part(Part::Place)?;
                Ok(sys::set_attr(place.as_fd(), attr, *below)?)
            }
            Step::Mask(path) => self.hidden.mask(root(&self.root)?, path),
            Step::Readonly(path) => self.hidden.read_only(root(&self.root)?, path),
            Step::ReadonlyRoot => Ok(sys::set_attr(self.fd()?, &read_only(), false)?),
            Step::Pivot(shared) => self.pivot(*shared),
            Step::MoveRoot(covers) => self.move_root(covers),
            Step::Chroot => {
                process::fchdir(self.fd()?)?;
                self.chroot()
            }
            _ => Err(Fault(Part::Protocol, Errno::ENOSYS as i32)),
        }
    }

    fn open_root(&mut self, path: &CStr) -> Result<(), Fault> {
        // Modes of what is made here are exact. Then comes the mask of the process, or with the new root that of the caller.
        let old = process::umask(0);
        let is_set = self.init.plan.steps.iter().any(|planned| matches!(planned.step, Step::Umask(_)));
        self.umask = (!is_set).then_some(old);
        self.root = Some(file::open(path, file::O_PATH | file::O_DIRECTORY, 0)?);
        Ok(())
    }

    fn bind_root(&mut self, path: &CStr) -> Result<(), Fault> {
        sys::mount(Some(path), path, None, sys::MS_BIND | sys::MS_REC, None)?;
        self.open_root(path)
    }

    /// The directory that a mount goes on.
    fn place(&mut self, target: &Target, directory: bool) -> Result<Left, Fault> {
        if directory
            && !target.no_symlinks
            && !target.nofollow
            && let Some(made) = self.held.make(root(&self.root)?, &target.path).part(Part::Place)?
        {
            let made = file::openat2(made.0, made.1, file::O_PATH | file::O_DIRECTORY, 0, file::STRICT);
            return Ok(made.part(Part::Place)?.into());
        }
        let root = self.fd()?;
        let place = if target.no_symlinks {
            match file::openat2(root, &target.path, file::O_PATH, 0, file::IN_ROOT_NO_SYMLINKS) {
                Err(Errno::ENOENT) => {
                    in_root::mkdir_all(root, &target.path).part(Part::Place)?;
                    file::openat2(root, &target.path, file::O_PATH, 0, file::IN_ROOT_NO_SYMLINKS)
                }
                other => other,
            }
        } else {
            let there = if target.nofollow {
                file::openat2(root, &target.path, file::O_PATH | file::O_NOFOLLOW, 0, file::IN_ROOT)
            } else {
                Err(Errno::ENOENT)
            };
            match there {
                Err(Errno::ENOENT) if directory => in_root::mkdir_all(root, &target.path),
                Err(Errno::ENOENT) => in_root::touch(root, &target.path),
                other => other,
            }
        };
        let place = Left::from(place.part(Part::Place)?);
        // Nothing may stand in for a file of procfs, wherever a symlink of the image leads (CVE-2019-16884).
        if !target.no_symlinks && !target.proc_allowed && file::fs_type(place.as_fd())? == file::PROC_SUPER_MAGIC {
            return Err(Fault(Part::OnProc, Errno::EPERM as i32));
        }
        Ok(place)
    }

    /// The topmost mount at the target, after one was made there.
    fn mounted(&self, target: &Target) -> Result<OwnedFd, Fault> {
        file::openat2(self.fd()?, &target.path, file::O_PATH, 0, file::IN_ROOT).part(Part::Place)
    }

    /// The topmost mount at a place, which must be one.
    fn mount_point(&self, target: &Target) -> Result<OwnedFd, Fault> {
        let flags = file::O_PATH | if target.nofollow { file::O_NOFOLLOW } else { 0 };
        let place = file::openat2(self.fd()?, &target.path, flags, 0, file::IN_ROOT)?;
        // A walk never ends on what is mounted over: the root of the topmost mount is what it comes to.
        if file::is_mount_root(place.as_fd())? { Ok(place) } else { Err(Fault(Part::Mismatch, Errno::EINVAL as i32)) }
    }

    fn unmount(&self, target: &Target) -> Result<(), Fault> {
        let place = self.mount_point(target)?;
        Ok(self.unmount_at(place.as_fd())?)
    }

    /// Unmounts the topmost mount on what the fd refers to, itself included.
    fn unmount_at(&self, place: BorrowedFd) -> Result<(), Errno> {
        // umount2(2) takes a path alone: that of the fd in the host's /proc, which no container can have touched.
        process::fchdir(self.init.proc)?;
        let mut buf = [0u8; 32];
        let result = sys::unmount(file::own_fd_path(&mut buf, place)?, sys::MNT_DETACH);
        process::fchdir(self.fd()?)?;
        result
    }

    /// An fd for [`Rootfs::keep`], where mounts may have to go again. Got before the mount is made: then nothing can fail between.
    fn hold(&self, fd: BorrowedFd) -> Result<Option<OwnedFd>, Fault> {
        let held = self.init.plan.all_or_nothing.then(|| fd.try_clone_to_owned()).transpose();
        Ok(held.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))?)
    }

    /// Remembers the mount of this step.
    fn keep(&self, mounted: Option<Mounted>) {
        if let Some(room) = self.init.mounted.get(usize::from(self.at)) {
            room.set(mounted);
        }
    }

    /// Unmounts what was made here and nothing else, the last one first. What the container has done to it meanwhile goes with it;
    /// there is nobody to be told of a failure but of the step's own.
    pub fn take_back(&self) {
        for mounted in self.init.mounted.iter().rev().filter_map(Cell::take) {
            match &mounted {
                // A container that mounts over it has that unmounted first: a walk ends on the topmost mount. EINVAL: it is no mount
                // of this namespace any more.
                Mounted::Root(root) => {
                    let mut left = STACKED_MOST;
                    while left > 0 && self.unmount_at(root.as_fd()).is_ok() {
                        left -= 1;
                    }
                }
                Mounted::Place(place) => {
                    let _ = self.unmount_at(place.as_fd());
                }
            }
        }
    }

    fn mount(&mut self, m: &'a MountStep) -> Result<(), Fault> {
        // A directory that is only now made has no mode to keep: the file system's own default holds then.
        let keep_mode =
            m.keep_mode && file::openat2(self.fd()?, &m.target.path, file::O_PATH, 0, file::IN_ROOT).is_ok();
        let place = self.place(&m.target, true)?;
        self.held.mounted_on(&m.target.path);
        let held = self.hold(place.as_fd())?;
        process::fchdir(place.as_fd())?;
        let mounted = if keep_mode { mount_with_mode(m, place.as_fd()) } else { mount_here(m, &m.data) };
        let kind = match mounted {
            // In a user namespace only what belongs to it can be mounted: a cgroup tree with a cgroup namespace of its own, sysfs
            // with a network namespace.
            Err(errno @ (Errno::EPERM | Errno::EBUSY)) => {
                let Some((tree, whole)) = &m.fallback else { return Err(errno.into()) };
                self.bind_instead(tree, *whole, m.flags, place.as_fd())?
            }
            other => {
                other?;
                if m.fs.as_c_str() == c"tmpfs" {
                    self.held.begin(&m.target.path);
                }
                kind_of(&m.fs)
            }
        };
        self.hidden.mounted(&m.target.path, kind);
        self.keep(held.map(Mounted::Place));
        let none = Attr::default();
        if m.copy_up || m.attr != none || m.recursive != none || !m.propagation.is_empty() {
            let mounted = self.mounted(&m.target)?;
            if m.copy_up {
                copy_up::directory(place.as_fd(), mounted.as_fd()).part(Part::CopyUp)?;
            }
            change(mounted.as_fd(), &m.attr, &m.recursive, &m.propagation)?;
        }
        Ok(())
    }

    /// The host's view of a file system that could not be mounted anew, as restricted as that would have been.
    /// The kind of what is bound: see [`whole_kind`].
    fn bind_instead(&self, tree: &Tree, whole: bool, flags: u64, place: BorrowedFd) -> Result<i64, Fault> {
        const FLAGS: [(u64, u64); 4] = [
            (sys::MS_RDONLY, attr::RDONLY),
            (sys::MS_NOSUID, attr::NOSUID),
            (sys::MS_NODEV, attr::NODEV),
            (sys::MS_NOEXEC, attr::NOEXEC),
        ];
        let tree = tree_of(self.init, self.fd()?, tree, whole, false)?;
        let set = FLAGS.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |set, (_, bit)| set | bit);
        sys::set_attr(tree.as_fd(), &Attr { set, ..Attr::default() }, whole).part(Part::Attributes)?;
        sys::attach(tree.as_fd(), place).part(Part::Attach)?;
        Ok(whole_kind(tree.as_fd(), file::fstat(tree.as_fd())?.ino)?)
    }

    fn bind(&mut self, b: &'a BindStep) -> Result<(), Fault> {
        let tree = tree_of(self.init, root(&self.root)?, &b.tree, b.whole, b.nofollow)?;
        let tree = tree.as_fd();
        if b.directory
            && !self.init.plan.all_or_nothing
            && let Some((dir, name)) = self.held.make(root(&self.root)?, &b.target.path).part(Part::Place)?
        {
            change(tree, &b.attr, &b.recursive, &b.propagation)?;
            return sys::attach_at(tree, dir, name).part(Part::Attach);
        }
        if b.idmap.is_some() && matches!(b.tree, Tree::Root(_)) {
            // It shows the mounts made so far, so it could not be opened before; and it needs the host's rights.
            self.init.ask_at(Tag::Idmap, self.at, Some(tree))?;
        }
        let found = file::fstat(tree)?;
        if b.copy_symlink && found.mode & file::S_IFMT == file::S_IFLNK {
            return self.copy_symlink(tree, &b.target.path);
        }
        let directory = found.is_dir();
        if b.target.path.as_c_str() == c"/proc" && file::fs_type(tree)? != file::PROC_SUPER_MAGIC {
            return Err(Fault(Part::OnProc, Errno::EPERM as i32));
        }
        let place = self.place(&b.target, directory)?;
        self.held.mounted_on(&b.target.path);
        // Before it can be seen: what is attached is what was asked for.
        if b.locked && b.attr != Attr::default() {
            keep_locked(tree, &b.attr)?;
        }
        change(tree, &b.attr, &b.recursive, &b.propagation)?;
        let held = self.hold(tree)?;
        let kind = if b.target.no_symlinks { whole_kind(tree, found.ino)? } else { 0 };
        sys::attach(tree, place.as_fd()).part(Part::Attach)?;
        self.hidden.mounted(&b.target.path, kind);
        self.keep(held.map(Mounted::Root));
        Ok(())
    }

    /// A symlink with the same text; one that is there already must have it.
    #[inline(never)]
    fn copy_symlink(&self, link: BorrowedFd, at: &CStr) -> Result<(), Fault> {
        let (mut text, mut there) = ([0u8; file::PATH_MAX], [0u8; file::PATH_MAX]);
        // One byte stays for the end of the string.
        let room = text.get_mut(..file::PATH_MAX - 1).ok_or(Errno::ENAMETOOLONG)?;
        file::readlinkat(link, c"", room).part(Part::Source)?;
        let text = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::EINVAL)?;
        let (dir, name) = in_root::parent(self.fd()?, at).part(Part::Place)?;
        match file::symlinkat(text, dir.as_fd(), name) {
            Err(Errno::EEXIST) => match file::readlinkat(dir.as_fd(), name, &mut there) {
                Ok(found) if found == text.to_bytes() => Ok(()),
                _ => Err(Fault(Part::Mismatch, Errno::EEXIST as i32)),
            },
            other => other.part(Part::Place),
        }
    }

    /// The directory of a path and the name in it.
    fn parent<'p>(&mut self, path: &'p CStr) -> Result<(Dir<'_>, &'p CStr), Fault> {
        let in_dev = path.to_bytes().strip_prefix(b"/dev/").filter(|name| !name.contains(&b'/') && !name.is_empty());
        if in_dev.is_none() {
            let (dir, name) = in_root::parent(self.fd()?, path).part(Part::Place)?;
            return Ok((Dir::Own(dir.into()), name));
        }
        if self.dev.is_none() {
            self.dev = Some(in_root::mkdir_all(self.fd()?, c"/dev").part(Part::Place)?);
        }
        let name = path.to_bytes_with_nul().get(c"/dev/".to_bytes().len()..).unwrap_or_default();
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EINVAL)?;
        Ok((Dir::Held(self.dev.as_ref().ok_or(Errno::EBADF)?.as_fd()), name))
    }

    fn device(&mut self, d: &DeviceStep) -> Result<(), Fault> {
        if let Tree::Opened(_) = d.tree {
            return self.bind_device(d);
        }
        let proc = self.init.proc;
        let (dir, name) = self.parent(&d.path)?;
        match file::mknodat(dir.as_fd(), name, d.mode, d.device) {
            // Of a user namespace, ours or the one that we were started in.
            Err(Errno::EPERM) => self.bind_device(d),
            Ok(()) if d.owner == (0, 0) => Ok(()),
            Ok(()) | Err(Errno::EEXIST) => keep_device(proc, dir.as_fd(), name, d),
            Err(e) => Err(e.into()),
        }
    }

    fn bind_device(&mut self, d: &DeviceStep) -> Result<(), Fault> {
        // What the host has under this name may be another device, to which config.json gives the container no right.
        let tree = tree_of(self.init, root(&self.root)?, &d.tree, false, false)?;
        let found = file::fstat(tree.as_fd())?;
        if d.exact && (found.mode & file::S_IFMT, found.rdev) != (d.mode & file::S_IFMT, d.device) {
            return Err(Fault(Part::Source, Errno::ENODEV as i32));
        }
        let (dir, name) = self.parent(&d.path)?;
        match file::mknodat(dir.as_fd(), name, file::S_IFREG | 0o666, 0) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(Fault(Part::Place, e as i32)),
        }
        let place = ordinary(dir.as_fd(), name)?;
        sys::attach(tree.as_fd(), place.as_fd()).part(Part::Attach)
    }

    fn symlink(&mut self, to: &CStr, at: &CStr) -> Result<(), Fault> {
        let (dir, name) = self.parent(at)?;
        match file::symlinkat(to, dir.as_fd(), name) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn ptmx(&mut self) -> Result<(), Fault> {
        let (dir, name) = self.parent(c"/dev/ptmx")?;
        let mut made = file::symlinkat(c"pts/ptmx", dir.as_fd(), name);
        if made == Err(Errno::EEXIST) {
            file::unlinkat(dir.as_fd(), name)?;
            made = file::symlinkat(c"pts/ptmx", dir.as_fd(), name);
        }
        Ok(made?)
    }

    /// Binds the pty's slave to /dev/console; both by fd (CVE-2025-52565, CVE-2026-88264).
    pub fn bind_console(&mut self, slave: BorrowedFd) -> Result<(), Fault> {
        let (dir, name) = self.parent(c"/dev/console")?;
        match file::mknodat(dir.as_fd(), name, file::S_IFREG | 0o666, 0) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(Fault(Part::Place, e as i32)),
        }
        let place = ordinary(dir.as_fd(), name)?;
        let tree = sys::clone_tree(Some(slave), c"", false, false).part(Part::Attach)?;
        sys::attach(tree.as_fd(), place.as_fd()).part(Part::Attach)
    }

    fn pivot(&mut self, shared: bool) -> Result<(), Fault> {
        let old = if shared { Some(file::open(c"/", file::O_PATH | file::O_DIRECTORY, 0)?) } else { None };
        process::fchdir(self.fd()?)?;
        sys::pivot_root_here()?;
        // The old root is now stacked on the new one. Its going must not be seen on the host. It is reached by its own fd: for
        // mount(2), unlike for umount2(2), `.` is still the mount below it.
        if let Some(old) = old {
            process::fchdir(old.as_fd())?;
            sys::mount(None, c".", None, sys::MS_SLAVE | sys::MS_REC, None).part(Part::Propagation)?;
        }
        sys::unmount(c".", sys::MNT_DETACH)?;
        process::chdir(c"/")?;
        self.umask.map(process::umask);
        Ok(())
    }

    /// Without pivot_root the host's mounts stay below the new root in the namespace: a full procfs or sysfs there would
    /// allow the container to mount another, so those are taken away or covered first.
    fn move_root(&mut self, covers: &[CString]) -> Result<(), Fault> {
        for place in covers {
            match sys::unmount(place, sys::MNT_DETACH) {
                Ok(()) => {}
                // A locked mount of a user namespace, or one that is gone with the one above it.
                Err(Errno::EINVAL | Errno::EPERM) => {
                    match sys::mount(Some(c"tmpfs"), place, Some(c"tmpfs"), sys::MS_RDONLY, None) {
                        Ok(()) | Err(Errno::ENOENT) => {}
                        Err(e) => return Err(Fault(Part::Place, e as i32)),
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(Fault(Part::Place, e as i32)),
            }
        }
        process::fchdir(self.fd()?)?;
        sys::mount(Some(c"."), c"/", None, sys::MS_MOVE, None)?;
        self.chroot()
    }

    /// Into the working directory.
    fn chroot(&mut self) -> Result<(), Fault> {
        process::chroot(c".")?;
        process::chdir(c"/")?;
        self.umask.map(process::umask);
        Ok(())
    }
}

/// The magic number of a new procfs or sysfs.
fn kind_of(fs: &CStr) -> i64 {
    match fs.to_bytes() {
        b"proc" => file::PROC_SUPER_MAGIC,
        b"sysfs" => file::SYSFS_MAGIC,
        _ => 0,
    }
}

/// That of a tree which is the whole of one; 0 for all others.
fn whole_kind(tree: BorrowedFd, ino: u64) -> Result<i64, Errno> {
    let kind = file::fs_type(tree)?;
    let whole = [file::SYSFS_MAGIC, file::PROC_SUPER_MAGIC].contains(&kind) && ino == KERNEL_ROOT;
    Ok(if whole { kind } else { 0 })
}

/// A directory or a tree that is held for longer, or for this call.
enum Dir<'a> {
    Held(BorrowedFd<'a>),
    Own(Left),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::Held(fd) => *fd,
            Dir::Own(fd) => fd.as_fd(),
        }
    }
}

fn root(held: &Option<OwnedFd>) -> Result<BorrowedFd<'_>, Errno> {
    held.as_ref().map(AsFd::as_fd).ok_or(Errno::EBADF)
}

/// A detached tree.
fn tree_of<'a>(init: &Init<'a>, root: BorrowedFd, tree: &Tree, whole: bool, nofollow: bool) -> Result<Dir<'a>, Fault> {
    let cloned = match tree {
        Tree::Opened(open) => return Ok(Dir::Held(init.opens.get(*open).ok_or(Errno::EBADF)?.as_fd())),
        Tree::Host(path) => sys::clone_tree(None, path, whole, nofollow),
        Tree::Root(path) => {
            let flags = file::O_PATH | if nofollow { file::O_NOFOLLOW } else { 0 };
            file::openat2(root, path, flags, 0, file::IN_ROOT)
                .and_then(|source| sys::clone_tree(Some(source.as_fd()), c"", whole, false))
        }
    };
    Ok(Dir::Own(cloned.part(Part::Source)?.into()))
}

/// mount(2) on the working directory.
fn mount_here(m: &MountStep, data: &CStr) -> Result<(), Errno> {
    sys::mount(Some(&m.source), c".", Some(&m.fs), m.flags, (!data.is_empty()).then_some(data))
}

/// The same with the mode of what it covers; by itself, for the sake of the stack.
#[inline(never)]
fn mount_with_mode(m: &MountStep, place: BorrowedFd) -> Result<(), Errno> {
    let mut buf = [0u8; file::PATH_MAX];
    mount_here(m, with_mode(&mut buf, &m.data, file::fstat(place)?.mode & 0o7777)?)
}

fn read_only() -> Attr {
    Attr { set: attr::RDONLY, ..Attr::default() }
}

/// Something that can be mounted over: not a symlink, which would be followed by whoever opens it later.
fn ordinary(dir: BorrowedFd, name: &CStr) -> Result<OwnedFd, Fault> {
    let place = file::openat(dir, name, file::O_PATH | file::O_NOFOLLOW, 0).part(Part::Place)?;
    match file::fstat(place.as_fd())?.mode & file::S_IFMT {
        file::S_IFLNK | file::S_IFDIR => Err(Fault(Part::Mismatch, Errno::EEXIST as i32)),
        _ => Ok(place),
    }
}

/// Gives the node of this name its mode and owner. By then the name may be that of a symlink to a file of the host, so it is asked for
/// once, and all that follows is about what was found (the class of CVE-2021-30465).
fn keep_device(proc: BorrowedFd, dir: BorrowedFd, name: &CStr, d: &DeviceStep) -> Result<(), Fault> {
    let node = file::openat(dir, name, file::O_PATH | file::O_NOFOLLOW, 0)?;
    let there = file::fstat(node.as_fd())?;
    if (there.mode & file::S_IFMT, there.rdev) != (d.mode & file::S_IFMT, d.device) {
        return Err(Fault(Part::Mismatch, Errno::EEXIST as i32));
    }
    if there.mode != d.mode {
        match file::chmod_path_fd(proc, node.as_fd(), d.mode & 0o7777) {
            // The host's own node, which a mount of config.json has bound: it stays as it is, as one that we bind.
            Err(Errno::EPERM) => return Ok(()),
            other => other?,
        }
    }
    if d.owner != (0, 0) {
        file::chown_path_fd(node.as_fd(), d.owner.0, d.owner.1)?;
    }
    Ok(())
}

/// In a user namespace the kernel lets nobody take away what a mount of the host's has (mount_namespaces(7)): no flag of those that
/// restrict, and no change of access times. A tree that was cloned outside is not yet bound to that, so it is seen to here. The
/// mount's own flags and those of its file system look alike: what is still there after the change was the file system's.
fn keep_locked(tree: BorrowedFd, attr: &Attr) -> Result<(), Fault> {
    let before = file::mount_flags(tree)?;
    sys::set_attr(tree, attr, false).part(Part::Attributes)?;
    let after = file::mount_flags(tree)?;
    let lost = before & !after & file::ST_RESTRICTING;
    let other_times = (before ^ after) & file::ST_ATIME;
    if lost | other_times != 0 { Err(Fault(Part::Locked, Errno::EPERM as i32)) } else { Ok(()) }
}

/// Attributes of the topmost mount, then of the whole tree, then the propagation types in their order.
fn change(mount: BorrowedFd, own: &Attr, recursive: &Attr, propagation: &[u64]) -> Result<(), Fault> {
    if *own != Attr::default() {
        sys::set_attr(mount, own, false).part(Part::Attributes)?;
    }
    if *recursive != Attr::default() {
        sys::set_attr(mount, recursive, true).part(Part::Attributes)?;
    }
    for flags in propagation {
        let attr = Attr { propagation: flags & !sys::MS_REC, ..Attr::default() };
        sys::set_attr(mount, &attr, flags & sys::MS_REC != 0).part(Part::Propagation)?;
    }
    Ok(())
}

/// pivot_root(2) refuses when the mount that the new root lies on is shared. Which mount that is, is found by going up
/// from the path: only the root of a mount has a propagation type to be changed.
#[inline(never)]
fn private_parent(path: &CStr) -> Result<(), Errno> {
    let mut buf = [0u8; file::PATH_MAX];
    let mut end = path.to_bytes().len();
    loop {
        let here = if end == 0 {
            c"/"
        } else {
            buf.get_mut(..end)
                .ok_or(Errno::ENAMETOOLONG)?
                .copy_from_slice(path.to_bytes().get(..end).unwrap_or_default());
            *buf.get_mut(end).ok_or(Errno::ENAMETOOLONG)? = 0;
            CStr::from_bytes_until_nul(&buf).map_err(|_| Errno::EINVAL)?
        };
        match sys::mount(None, here, None, sys::MS_PRIVATE, None) {
            Err(Errno::EINVAL) if end > 0 => {
                end = path.to_bytes().get(..end).and_then(|p| p.iter().rposition(|b| *b == b'/')).unwrap_or(0);
            }
            other => return other,
        }
    }
}

/// The options with `mode=` of the directory that is covered, so that a tmpfs on /tmp stays as /tmp was.
fn with_mode<'b>(buf: &'b mut [u8; file::PATH_MAX], data: &CStr, mode: u32) -> Result<&'b CStr, Errno> {
    let octal = [9u32, 6, 3, 0].map(|shift| b'0' + (mode >> shift & 7) as u8);
    let comma: &[u8] = if data.is_empty() { b"" } else { b"," };
    let mut at = 0;
    for part in [data.to_bytes(), comma, b"mode=", &octal, b"\0"] {
        buf.get_mut(at..at + part.len()).ok_or(Errno::E2BIG)?.copy_from_slice(part);
        at += part.len();
    }
    CStr::from_bytes_until_nul(buf).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_appended_in_octal() {
        let mut buf = [0; file::PATH_MAX];
        assert_eq!(with_mode(&mut buf, c"size=1k", 0o1777).unwrap(), c"size=1k,mode=1777");
        let mut buf = [0; file::PATH_MAX];
        assert_eq!(with_mode(&mut buf, c"", 0o755).unwrap(), c"mode=0755");
    }
}
