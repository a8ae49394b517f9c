//! The root file system: what containerd's snapshotter says is mounted for the container, and taken away again. All of it in a worker:
//! mounts may take time, and long lists of layers are given relative to a working directory.

mod layers;
mod options;

use crate::worker::{Failure, Result};
use containerd_shim_protos::api::Mount;
use layers::{Overlay, PAGE};
use options::Options;
use orlop_sys::mount::{Attr, attr};
use orlop_sys::{Errno, file, loop_device, mount, process};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes the mounts of `list` at `rootfs`, one after the other. After a failure none is left.
pub fn make(list: &[Mount], rootfs: &Path) -> Result<()> {
    let made = make_all(list, rootfs);
    if made.is_err() {
        let _ = undo(rootfs);
    }
    made
}

/// Whether their options are understood, each by itself.
///
/// # Errors
/// One that is not for us to do.
pub fn check(list: &[Mount]) -> Result<()> {
    list.iter().try_for_each(|one| Options::of(one).map(drop))
}

fn make_all(list: &[Mount], rootfs: &Path) -> Result<()> {
    if list.first().is_some_and(|one| !one.target().is_empty()) {
        // With a mount at the rootfs itself, those below go when it goes.
        let root = text(rootfs.as_os_str().as_bytes())?;
        attach(mount::clone_tree(None, &root, false, false).map_err(failed("open_tree"))?, &root)?;
    }
    for one in list {
        let target = if one.target().is_empty() { rootfs.to_path_buf() } else { inside(rootfs, one.target())? };
        make_one(one, &target)
            .map_err(|e| e.during(&format!("mount {} {:?} on {}", one.type_(), one.source(), target.display())))?;
    }
    Ok(())
}

/// Where a target below the rootfs is: its symlinks, which an image brings along, lead to what is below the rootfs as well. Nobody changes them
/// before the container runs.
fn inside(rootfs: &Path, target: &str) -> Result<PathBuf> {
    let lost = |e: Errno| Failure::internal("rootfs", format!("target {target:?}: {}", e.desc()));
    let directory = file::O_PATH | file::O_DIRECTORY;
    let root = file::open(&text(rootfs.as_os_str().as_bytes())?, directory, 0).map_err(lost)?;
    let found = file::openat2(root.as_fd(), &text(target)?, file::O_PATH, 0, file::IN_ROOT).map_err(lost)?;
    let path = |fd: &OwnedFd| {
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        std::fs::read_link(name).map_err(|e| Failure::internal("rootfs", format!("target {target:?}: {e}")))
    };
    let (root, found) = (path(&root)?, path(&found)?);
    if found.starts_with(&root) {
        return Ok(found);
    }
    Err(Failure::internal("rootfs", format!("target {target:?} leads out of it")))
}

fn make_one(one: &Mount, target: &Path) -> Result<()> {
    if let Some((program, fs)) = options::helper(one.type_()) {
        return by_program(program, fs, one, target);
    }
    let options = Options::of(one)?;
    let userns = options.maps.as_ref().map(|(uids, gids)| orlop::userns::of_ranges(uids, gids)).transpose()?;
    let (source, target, fs) = (text(one.source())?, text(target.as_os_str().as_bytes())?, text(one.type_())?);
    if options.flags & mount::MS_BIND != 0 {
        bind(&source, &target, &options, userns)
    } else if fs.as_bytes() == b"overlay" {
        overlay(&source, &target, &options, userns)
    } else {
        file_system(&source, &target, &fs, &options, userns)
    }?;
    for kind in &options.propagation {
        mount::mount(None, &target, None, *kind, None).map_err(failed("propagation"))?;
    }
    Ok(())
}

fn text(s: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(s).map_err(|e| Failure::internal("a string", e))
}

fn failed(call: &'static str) -> impl Fn(Errno) -> Failure {
    move |e| Failure::internal(call, e.desc())
}

/// Flags of mount(2), and the attributes of the same meaning.
const ATTRIBUTES: [(u64, u64); 8] = [
    (mount::MS_RDONLY, attr::RDONLY),
    (mount::MS_NOSUID, attr::NOSUID),
    (mount::MS_NODEV, attr::NODEV),
    (mount::MS_NOEXEC, attr::NOEXEC),
    (mount::MS_NODIRATIME, attr::NODIRATIME),
    (mount::MS_NOSYMFOLLOW, attr::NOSYMFOLLOW),
    (mount::MS_NOATIME, attr::NOATIME),
    (mount::MS_STRICTATIME, attr::STRICTATIME),
];

/// A bind mount is made with its attributes before anybody can see it; those of its source stay, which a remount would take away.
fn bind(source: &CStr, target: &CStr, options: &Options, userns: Option<OwnedFd>) -> Result<()> {
    let whole = options.flags & mount::MS_REC != 0;
    let tree = mount::clone_tree(None, source, whole, false).map_err(failed("open_tree"))?;
    let set = ATTRIBUTES.iter().filter(|(flag, _)| options.flags & flag != 0).fold(0, |all, (_, bit)| all | bit);
    let clear = if set & attr::ATIME != 0 { attr::ATIME } else { 0 };
    if set != 0 {
        let attributes = Attr { set, clear, ..Attr::default() };
        mount::set_attr(tree.as_fd(), &attributes, false).map_err(failed("mount_setattr"))?;
    }
    if let Some(userns) = userns {
        mount::idmap(tree.as_fd(), userns.as_fd(), whole).map_err(failed("idmap with mount_setattr"))?;
    }
    attach(tree, target)
}

fn attach(tree: OwnedFd, target: &CStr) -> Result<()> {
    let target = file::open(target, file::O_PATH, 0).map_err(failed("open"))?;
    mount::attach(tree.as_fd(), target.as_fd()).map_err(failed("move_mount"))
}

fn overlay(source: &CStr, target: &CStr, options: &Options, userns: Option<OwnedFd>) -> Result<()> {
    let data = options.data.join(",");
    if userns.is_none() && data.len() < PAGE {
        let data = text(data)?;
        return mount::mount(Some(source), target, Some(c"overlay"), options.flags, Some(&data))
            .map_err(failed("mount"));
    }
    let (common, data) = layers::relative(&options.data);
    if userns.is_none() && data.len() < PAGE {
        let (common, data) = (text(common.as_os_str().as_bytes())?, text(data)?);
        let here = file::open(c".", file::O_PATH | file::O_DIRECTORY, 0).map_err(failed("open ."))?;
        process::chdir(&common).map_err(failed("chdir"))?;
        let made = mount::mount(Some(source), target, Some(c"overlay"), options.flags, Some(&data));
        process::fchdir(here.as_fd()).map_err(failed("fchdir"))?;
        return made.map_err(failed("mount"));
    }
    let overlay = Overlay { source, flags: options.flags, data: &options.data, userns };
    attach(layers::mount(&overlay, target)?, target)
}

fn file_system(source: &CStr, target: &CStr, fs: &CStr, options: &Options, userns: Option<OwnedFd>) -> Result<()> {
    let data = text(options.data.join(","))?;
    let device = match options.loop_device {
        Some(flags) => {
            let access = if flags & loop_device::flag::READ_ONLY != 0 { file::O_RDONLY } else { file::O_RDWR };
            let image = file::open(source, access, 0).map_err(failed("open"))?;
            Some(loop_device::attach(image.as_fd(), flags).map_err(failed("loop device"))?)
        }
        None => None,
    };
    let source = device.as_ref().map_or(source, |(path, _)| path.as_c_str());
    mount::mount(Some(source), target, Some(fs), options.flags, Some(&data)).map_err(failed("mount"))?;
    let Some(userns) = userns else { return Ok(()) };
    // Only a detached mount can be given maps; it covers the one without.
    let tree = mount::clone_tree(None, target, false, false).map_err(failed("open_tree"))?;
    mount::idmap(tree.as_fd(), userns.as_fd(), false).map_err(failed("idmap with mount_setattr"))?;
    attach(tree, target)
}

/// The program may stay to serve the file system: it gets no stream of the container's.
#[expect(clippy::disallowed_methods, reason = "a file system in user space is a program")]
fn by_program(program: &str, fs: &str, one: &Mount, target: &Path) -> Result<()> {
    let lost = |e: std::io::Error| Failure::internal(program, e);
    let mut said = File::from(file::memfd(c"stderr").map_err(failed("memfd"))?);
    let path =
        orlop::program::find(program).ok_or_else(|| Failure::internal(program, "there is no such program in PATH"))?;
    process::reset_signals();
    let mut command = Command::new(path);
    command.arg(one.source()).arg(target);
    command.args(one.options.iter().flat_map(|option| ["-o", option]));
    command.args(["-t", fs]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone().map_err(lost)?);
    let status = command.status().map_err(lost)?;
    if status.success() {
        return Ok(());
    }
    let mut why = String::new();
    said.rewind().and_then(|()| said.read_to_string(&mut why)).map_err(lost)?;
    Err(Failure::internal(program, format!("{status}: {}", why.trim())))
}

/// Takes away every mount at `rootfs` and below; none is no failure. A mount that is in use goes when its last user has.
pub fn undo(rootfs: &Path) -> orlop_sys::Result<()> {
    const UMOUNT_NOFOLLOW: i32 = 8;
    let target = CString::new(rootfs.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    loop {
        // MNT_DETACH takes what is mounted below along.
        match mount::unmount(&target, mount::MNT_DETACH | UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: nothing is mounted there (any more).
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_inside() {
        let root = std::env::temp_dir().join(format!("orlop-target-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let root = root.canonicalize().unwrap();
        for (link, to) in [("absolute", "/etc"), ("upwards", "../../../../../../etc"), ("nowhere", "/usr")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        let found = ["/etc", "etc", "/absolute", "upwards", "../../etc"].map(|target| inside(&root, target).unwrap());
        let missing = inside(&root, "/nowhere").is_err();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(found.iter().all(|path| *path == root.join("etc")), "{found:?}");
        assert!(missing);
    }
}
