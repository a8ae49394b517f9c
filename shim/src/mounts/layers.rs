//! Layers of an overlay that cannot be named as they are: their ids are to be shown by maps, or their names are too long for mount(2).

use crate::worker::{Failure, Result};
use orlop_sys::{Errno, fds, file, mount, process, socket};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// mount(2) takes one page of options, the last byte of which is a NUL.
pub const PAGE: usize = 4096;
/// The option that names the layers.
const LAYERS: &str = "lowerdir=";
/// Where the overlay is in the private namespace, beside its layers, which are numbers.
const MERGED: &CStr = c"merged";

/// What mount(2) is told of an overlay.
pub struct Overlay<'a> {
    /// Shown in mountinfo(5).
    pub source: &'a CStr,
    /// For mount(2).
    pub flags: u64,
    /// Its options.
    pub data: &'a [String],
    /// By whose maps the ids of the layers are shown.
    pub userns: Option<OwnedFd>,
}

/// The layers that the options name.
fn layers(data: &[String]) -> impl Iterator<Item = &str> {
    data.iter().filter_map(|option| option.strip_prefix(LAYERS)).flat_map(|layers| layers.split(':'))
}

/// The options with other names for the layers.
fn renamed(data: &[String], name: impl Fn(usize, &str) -> String) -> String {
    let options = data.iter().map(|option| match option.strip_prefix(LAYERS) {
        Some(layers) => {
            let names = layers.split(':').enumerate().map(|(n, layer)| name(n, layer));
            LAYERS.to_string() + &names.collect::<Vec<_>>().join(":")
        }
        None => option.clone(),
    });
    options.collect::<Vec<_>>().join(",")
}

/// The directory that the layers have in common, and the options with names from there: lists of hundreds of layers then fit into a page.
pub fn relative(data: &[String]) -> (&Path, String) {
    let first = layers(data).next().map(Path::new).and_then(Path::parent).unwrap_or(Path::new("/"));
    let common = first.ancestors().find(|dir| layers(data).all(|layer| Path::new(layer).starts_with(dir)));
    let common = common.unwrap_or(Path::new("/"));
    let short = |_, path: &str| {
        Path::new(path).strip_prefix(common).map_or(path.to_string(), |path| path.display().to_string())
    };
    (common, renamed(data, short))
}

/// The overlay as a detached mount. Its layers get numbers for names in a mount namespace of their own, which ends before this returns:
/// whatever happens to this process, nothing of it is left on the host. `room` is a directory to do it in, out of sight of everybody.
pub fn mount(overlay: &Overlay, room: &CStr) -> Result<OwnedFd> {
    let failed = |e: Errno| Failure::internal("overlay", e.desc());
    let (ours, theirs) = socket::pair().map_err(failed)?;
    let child = process::fork(|| {
        let (said, tree) = match make(overlay, room) {
            Ok(tree) => (vec![0], Some(tree)),
            Err(why) => (why.into_bytes(), None),
        };
        u8::from(socket::send(theirs.as_fd(), &said, tree.as_ref().map(AsFd::as_fd)).is_err())
    });
    let child = child.map_err(failed)?;
    let ended = process::wait(child.pidfd.as_fd(), true).map_err(failed)?;
    // It has sent before it ended, or never will.
    fds::close_copy(theirs.as_fd());
    std::mem::forget(theirs);
    let mut said = vec![0; PAGE];
    match socket::recv(ours.as_fd(), &mut said).map_err(failed)? {
        (_, Some(tree)) => Ok(tree),
        (0, None) => Err(Failure::internal("overlay", format!("its process was lost: {ended:?}"))),
        (n, None) => Err(Failure::internal("overlay", String::from_utf8_lossy(said.get(..n).unwrap_or_default()))),
    }
}

fn make(overlay: &Overlay, room: &CStr) -> std::result::Result<OwnedFd, String> {
    const CLONE_NEWNS: i32 = 0x2_0000;
    let failed = |what: String| move |e: Errno| format!("{what}: {}", e.desc());
    let text = |s: String| CString::new(s).map_err(|_| "an option has a NUL in it".to_string());
    process::unshare(CLONE_NEWNS).map_err(failed("unshare".to_string()))?;
    // Nothing that is mounted from here on shows up on the host.
    mount::mount(None, c"/", None, mount::MS_REC | mount::MS_PRIVATE, None).map_err(failed("make / private".into()))?;
    mount::mount(Some(c"tmpfs"), room, Some(c"tmpfs"), 0, None).map_err(failed("mount tmpfs".to_string()))?;
    process::chdir(room).map_err(failed("chdir".to_string()))?;
    for (n, layer) in layers(overlay.data).enumerate() {
        let place = || -> orlop_sys::Result<()> {
            let layer = CString::new(layer).map_err(|_| Errno::EINVAL)?;
            let name = CString::new(n.to_string()).map_err(|_| Errno::EINVAL)?;
            let tree = mount::clone_tree(None, &layer, false, false)?;
            if let Some(userns) = &overlay.userns {
                mount::idmap(tree.as_fd(), userns.as_fd(), false)?;
            }
            mount::attach(tree.as_fd(), directory(&name)?.as_fd())
        };
        place().map_err(failed(format!("layer {layer:?}")))?;
    }
    directory(MERGED).map_err(failed("mkdir".to_string()))?;
    let data = text(renamed(overlay.data, |n, _| n.to_string()))?;
    if data.as_bytes().len() >= PAGE {
        return Err(format!("{} layers: more than mount(2) takes", layers(overlay.data).count()));
    }
    mount::mount(Some(overlay.source), MERGED, Some(c"overlay"), overlay.flags, Some(&data))
        .map_err(failed(format!("mount({})", data.to_string_lossy())))?;
    mount::clone_tree(None, MERGED, false, false).map_err(failed("open_tree".to_string()))
}

fn directory(name: &CStr) -> orlop_sys::Result<OwnedFd> {
    let here = file::open(c".", file::O_PATH | file::O_DIRECTORY, 0)?;
    file::mkdirat(here.as_fd(), name, 0o700)?;
    file::openat(here.as_fd(), name, file::O_PATH | file::O_DIRECTORY, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_from_their_common_directory() {
        let layers: Vec<String> = (0..300).map(|n| format!("/proc/sys/kernel/{n}/fs")).collect();
        let data = ["index=off".to_string(), format!("lowerdir={}", layers.join(":")), "upperdir=/u".to_string()];
        let (common, short) = relative(&data);
        assert_eq!(common, Path::new("/proc/sys/kernel"));
        assert!(
            short.starts_with("index=off,lowerdir=0/fs:1/fs:") && short.ends_with(":299/fs,upperdir=/u"),
            "{short}"
        );
        assert_eq!(relative(&["lowerdir=/a/x:/b/y".to_string()]), (Path::new("/"), "lowerdir=a/x:b/y".to_string()));
    }

    #[test]
    fn layers_can_be_numbers() {
        let data = ["lowerdir=/long/a:/long/b:/c".to_string(), "upperdir=/u".to_string()];
        assert_eq!(renamed(&data, |n, _| n.to_string()), "lowerdir=0:1:2,upperdir=/u");
    }
}
