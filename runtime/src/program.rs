//! Programs of the host that do what we cannot: CRIU, newuidmap(1), newgidmap(1).

use crate::plan::c_string;
use orlop_sys::file;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for when our caller has set no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first executable file of this name in the directories of $PATH, see [`among`].
pub fn find(name: &str) -> Option<PathBuf> {
    among(&std::env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH)), name)
}

/// Absolute directories alone: others begin where our caller is, which is often a bundle, whose files are not the host's.
fn among(path: &OsStr, name: &str) -> Option<PathBuf> {
    let places = path.as_bytes().split(|b| *b == b':').map(|dir| Path::new(OsStr::from_bytes(dir)).join(name));
    places.filter(|place| place.is_absolute()).find(|place| {
        c_string(place.as_os_str().as_bytes(), name)
            .is_ok_and(|text| file::stat(&text).is_ok_and(|stat| stat.is_file()) && file::executable(&text).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_an_executable_in_an_absolute_directory() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let relative = dir.path().strip_prefix(std::env::current_dir().unwrap()).unwrap_or(dir.path()).join("here");
        let [plain, folder, good] = ["plain", "folder", "good"].map(|name| dir.path().join(name));
        for dir in [&plain, &folder.join("criu"), &good, &relative] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for (dir, mode) in [(&plain, 0o644), (&good, 0o755), (&relative, 0o755)] {
            std::fs::write(dir.join("criu"), "").unwrap();
            std::fs::set_permissions(dir.join("criu"), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let [plain, folder, good] = [plain, folder, good].map(|dir| std::path::absolute(dir).unwrap());
        assert!(relative.is_relative() && relative.join("criu").is_file(), "{relative:?}");
        let join = |dirs: &[&Path]| std::env::join_paths(dirs).unwrap();
        assert_eq!(among(&join(&[&relative, Path::new(""), &plain, &folder]), "criu"), None);
        assert_eq!(among(&join(&[&relative, &plain, &folder, &good]), "criu"), Some(good.join("criu")));
    }
}
