//! The root file system: what containerd's snapshotter says is mounted for the container, and taken away again. All of it in a worker:
//! mounts may take time, and long lists of layers are given relative to a working directory.

use crate::worker::{Failure, Result};
use containerd_shim_protos::api::Mount;
use orlop::plan::mount_options;
use orlop_sys::{Errno, mount, process};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// mount(2) takes one page of options, the last byte of which is a NUL.
const PAGE: usize = 4096;

/// Makes the mounts of `list` at `rootfs`, one after the other. After a failure none is left.
pub fn make(list: &[Mount], rootfs: &Path) -> Result<()> {
    for one in list {
        let target = if one.target().is_empty() { rootfs.to_path_buf() } else { inside(rootfs, one.target())? };
        if let Err(e) = make_one(one, &target) {
            let _ = undo(rootfs);
            return Err(e);
        }
    }
    Ok(())
}

/// A target below the rootfs, which is empty before the first mount and trusted until the container runs.
fn inside(rootfs: &Path, target: &str) -> Result<PathBuf> {
    let plain = Path::new(target).components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if plain {
        return Ok(rootfs.join(target.trim_start_matches('/')));
    }
    Err(Failure::internal("rootfs", format!("target {target:?} leads out of it")))
}

fn make_one(one: &Mount, target: &Path) -> Result<()> {
    let failed = |e: Errno| {
        Failure::internal(&format!("mount {} {:?} on {}", one.type_(), one.source(), target.display()), e.desc())
    };
    let (flags, propagation, data) = mount_options::of_the_host(&one.options)?;
    let here = std::env::current_dir().map_err(|_| failed(Errno::ENOENT))?;
    let data = match data.join(",") {
        long if long.len() >= PAGE && one.type_() == "overlay" => relative(&data).map_err(failed)?,
        data => data,
    };
    let text = |s: &[u8]| CString::new(s).map_err(|_| failed(Errno::EINVAL));
    let (source, target, fs, data) = (
        text(one.source().as_bytes())?,
        text(target.as_os_str().as_bytes())?,
        text(one.type_().as_bytes())?,
        text(data.as_bytes())?,
    );
    let bind = flags & mount::MS_BIND != 0;
    let fs = (!bind).then_some(fs.as_c_str());
    mount::mount(Some(&source), &target, fs, flags, Some(&data)).map_err(failed)?;
    // A bind mount takes no other flags with the first call.
    if bind && flags & !(mount::MS_BIND | mount::MS_REC) != 0 {
        mount::mount(None, &target, None, flags & !mount::MS_REC | mount::MS_REMOUNT, None).map_err(failed)?;
    }
    for kind in propagation {
        mount::mount(None, &target, None, kind, None).map_err(failed)?;
    }
    process::chdir(&text(here.as_os_str().as_bytes())?).map_err(failed)
}

/// Enters the directory that the layers have in common, and names them from there: lists of hundreds of layers then fit into a page.
fn relative(data: &[String]) -> orlop_sys::Result<String> {
    const LAYERS: &str = "lowerdir=";
    let layers: Vec<&str> = data.iter().filter_map(|o| o.strip_prefix(LAYERS)).flat_map(|l| l.split(':')).collect();
    let first = layers.first().map(Path::new).and_then(Path::parent).unwrap_or(Path::new("/"));
    let common = first.ancestors().find(|dir| layers.iter().all(|layer| Path::new(layer).starts_with(dir)));
    let common = common.unwrap_or(Path::new("/"));
    process::chdir(&CString::new(common.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?)?;
    let short = |path: &str| Path::new(path).strip_prefix(common).map_or(path.to_string(), |p| p.display().to_string());
    let options = data.iter().map(|option| match option.strip_prefix(LAYERS) {
        Some(layers) => LAYERS.to_string() + &layers.split(':').map(short).collect::<Vec<_>>().join(":"),
        None => option.clone(),
    });
    Ok(options.collect::<Vec<_>>().join(","))
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
    fn layers_are_named_from_their_common_directory() {
        let layers: Vec<String> = (0..300).map(|n| format!("/proc/sys/kernel/{n}/fs")).collect();
        let data = ["index=off".to_string(), format!("lowerdir={}", layers.join(":")), "upperdir=/u".to_string()];
        let here = std::env::current_dir().unwrap();
        let short = relative(&data).unwrap();
        assert_eq!(std::env::current_dir().unwrap(), Path::new("/proc/sys/kernel"));
        std::env::set_current_dir(here).unwrap();
        assert!(
            short.starts_with("index=off,lowerdir=0/fs:1/fs:") && short.ends_with(":299/fs,upperdir=/u"),
            "{short}"
        );
    }

    #[test]
    fn a_target_stays_inside() {
        assert_eq!(inside(Path::new("/r"), "/etc").unwrap(), Path::new("/r/etc"));
        assert!(inside(Path::new("/r"), "a/../..").is_err());
    }
}
