//! The options of a mount that containerd asks for: those of mount(2), the file system's own, and three that are containerd's.

use crate::worker::{Failure, Result};
use containerd_shim_protos::api::Mount;
use containerd_shim_protos::ttrpc::Code;
use orlop::plan::mount_options;
use orlop_sys::loop_device::flag;
use orlop_sys::mount;

/// Types of mounts that are given to a program of the host: prefix, program.
const HELPERS: [(&str, &str); 2] = [("fuse.", "mount.fuse"), ("fuse3.", "mount.fuse3")];
/// What containerd's mount manager (2.2 and later) puts in front of the names of options that are for itself.
const INTERNAL: &str = "X-containerd.";

/// The options of one mount, sorted out.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    /// For mount(2).
    pub flags: u64,
    /// Propagation types, to be set one after the other.
    pub propagation: Vec<u64>,
    /// The file system's own.
    pub data: Vec<String>,
    /// Ranges `CONTAINER:HOST:SIZE` by which ids are shown: of users, of groups.
    pub maps: Option<(String, String)>,
    /// The source is a file, to be mounted as a block device with these flags.
    pub loop_device: Option<u32>,
}

impl Options {
    /// Those of a mount; what is not for us to do is refused by name.
    pub fn of(one: &Mount) -> Result<Options> {
        let refused = |what: String| Failure::new(Code::INVALID_ARGUMENT, format!("rootfs: {what}"));
        // "format/overlay", "mkfs/ext4", "mkdir/bind": templates, which containerd fills in for every runtime that does not ask to do it itself.
        if one.type_().contains('/') {
            return Err(refused(format!("mount type {:?} is for containerd's mount manager", one.type_())));
        }
        let (mut uids, mut gids, mut is_loop, mut direct, mut rest) = (None, None, false, false, Vec::new());
        for option in &one.options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("uidmap", ranges) => uids = Some(ranges.to_string()),
                ("gidmap", ranges) => gids = Some(ranges.to_string()),
                ("loop", "") => is_loop = true,
                ("direct-io", "") => direct = true,
                (name, _) if name.starts_with(INTERNAL) => {
                    return Err(refused(format!("mount option {option:?} is for containerd's mount manager")));
                }
                _ => rest.push(option.clone()),
            }
        }
        let maps = match (uids, gids) {
            (None, None) => None,
            (Some(uids), Some(gids)) => Some((uids, gids)),
            _ => return Err(refused("uidmap and gidmap are needed together".to_string())),
        };
        if direct && !is_loop {
            rest.push("direct-io".to_string());
        }
        let (flags, propagation, data) = mount_options::of_the_host(&rest)?;
        let read_only = if flags & mount::MS_RDONLY != 0 { flag::READ_ONLY } else { 0 };
        let direct = if direct { flag::DIRECT_IO } else { 0 };
        let loop_device = is_loop.then_some(flag::AUTOCLEAR | read_only | direct);
        Ok(Options { flags, propagation, data, maps, loop_device })
    }
}

/// The program for mounts of this type, and the type that it is told.
pub fn helper(fs: &str) -> Option<(&'static str, &str)> {
    HELPERS.iter().find_map(|(prefix, program)| Some((*program, fs.strip_prefix(prefix)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fs: &str, options: &[&str]) -> Result<Options> {
        let mut one = Mount::new();
        one.set_type(fs.to_string());
        one.options = options.iter().map(|o| o.to_string()).collect();
        Options::of(&one)
    }

    #[test]
    fn what_is_containerds_does_not_reach_the_file_system() {
        let o = of("overlay", &["index=off", "uidmap=0:1:2", "gidmap=0:3:4", "ro"]).unwrap();
        assert_eq!(o.data, ["index=off"]);
        assert_eq!(o.maps, Some(("0:1:2".to_string(), "0:3:4".to_string())));
        assert_eq!(o.flags, mount::MS_RDONLY);
        let o = of("erofs", &["ro", "loop", "direct-io"]).unwrap();
        assert_eq!(o.loop_device, Some(flag::AUTOCLEAR | flag::READ_ONLY | flag::DIRECT_IO));
        assert!(o.data.is_empty());
        assert_eq!(of("nfs", &["direct-io"]).unwrap().data, ["direct-io"]);
    }

    #[test]
    fn what_is_the_mount_managers_is_refused_by_name() {
        for (fs, options, says) in [
            ("format/overlay", &[][..], "\"format/overlay\""),
            ("mkfs/ext4", &["X-containerd.mkfs.fs=ext4"], "\"mkfs/ext4\""),
            ("ext4", &["X-containerd.mkfs.size=1"], "\"X-containerd.mkfs.size=1\""),
            ("overlay", &["uidmap=0:1:2"], "gidmap"),
        ] {
            let e = of(fs, options).unwrap_err().message;
            assert!(e.contains(says), "{fs} {options:?}: {e}");
        }
    }

    #[test]
    fn programs_by_type() {
        assert_eq!(helper("fuse3.fuse-overlayfs"), Some(("mount.fuse3", "fuse-overlayfs")));
        assert_eq!(helper("fuse.sshfs"), Some(("mount.fuse", "sshfs")));
        assert_eq!(helper("overlay"), None);
    }
}
