//! The directories of a checkpoint: the images, and the work directory with CRIU's log.
//!
//! Images come from elsewhere and are not trusted. CRIU and we write into these directories, so that a symbolic link laid
//! there for the name of a log would have root write to whatever it names: one is refused, and what is read or written
//! here is named relative to the directory's fd. Nothing that is read here changes the configuration.

use super::rpc::{inherit_fd, opt};
use super::wire::Message;
use crate::error::{Error, Kind, On, Result, invalid};
use crate::plan::c_string;
use orlop_sys::{Errno, file};
use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What the standard streams of the container's process were when it was dumped, in runc's file and form: a JSON array of
/// the texts of `/proc/PID/fd/{0,1,2}`.
const DESCRIPTORS: &CStr = c"descriptors.json";
/// A few hundred bytes are usual.
const MOST_DESCRIPTORS: u64 = 64 * 1024;
/// What CRIU writes into the work directory beside its log, through whatever lies there.
const STATISTICS: &[&CStr] = &[c"stats-dump", c"stats-restore"];
/// CRIU's link to the images of the pre-dump before.
const PARENT: &CStr = c"parent";
/// How much of a log is searched for errors: the last are those that count.
const LOG_TAIL: i64 = 256 * 1024;
/// How many lines of a log an error has, and how much of each.
const LOG_LINES: usize = 5;
const LOG_LINE: usize = 300;

/// The open directories.
#[derive(Debug)]
pub struct Images {
    images: Directory,
    work: Option<Directory>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The path.
    pub(super) name: CString,
    /// The directory.
    pub(super) fd: OwnedFd,
}

impl Images {
    /// For a dump: makes what is missing, for root alone, because memory may hold secrets.
    pub fn make(images: &Path, work: Option<&Path>) -> Result<Images> {
        DirBuilder::new().mode(0o700).recursive(true).create(images).on("mkdir", images.display()).at_flag(IMAGE)?;
        Images::open(images, work)
    }

    /// For a restore: the images must be there.
    pub fn open(images: &Path, work: Option<&Path>) -> Result<Images> {
        if let Some(work) = work {
            DirBuilder::new().mode(0o700).recursive(true).create(work).on("mkdir", work.display()).at_flag(WORK)?;
        }
        let work = work.map(|path| Directory::open(path, WORK)).transpose()?;
        let images = Directory::open(images, IMAGE)?;
        images.refuse_links()?;
        Ok(Images { images, work })
    }

    /// The options that name the directories and the log in them.
    pub fn name(&self, log: &CStr, options: &mut Message) -> Result<()> {
        let logs = self.logs();
        for written in [log].iter().chain(STATISTICS) {
            match file::lstatat(logs.fd.as_fd(), written) {
                Ok(there) if !there.is_file() => {
                    return Err(invalid(logs.path.join(name(written)).display().to_string(), "is not a regular file"));
                }
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e.on("stat", logs.path.join(name(written)).display())),
            }
        }
        options.number(opt::IMAGES_DIR_FD, self.images.fd.as_raw_fd());
        if let Some(work) = &self.work {
            options.number(opt::WORK_DIR_FD, work.fd.as_raw_fd());
        }
        options.number(opt::LOG_LEVEL, 4).text(opt::LOG_FILE, log.to_bytes());
        Ok(())
    }

    /// All of them.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Directory> {
        [Some(&self.images), self.work.as_ref()].into_iter().flatten()
    }

    /// Where CRIU writes its log.
    fn logs(&self) -> &Directory {
        self.work.as_ref().unwrap_or(&self.images)
    }

    /// The images of the pre-dump before: a directory, relative to these images.
    pub fn check_parent(&self, parent: &Path) -> Result<()> {
        const FLAG: &str = "--parent-path";
        if parent.is_absolute() {
            return Err(invalid(FLAG, "must be relative to --image-path"));
        }
        let path = c_string(parent.as_os_str().as_bytes(), FLAG)?;
        let open = file::openat(self.images.fd.as_fd(), &path, file::O_PATH | file::O_DIRECTORY, 0);
        open.on("open", self.images.path.join(parent).display()).map_err(|e| e.at(FLAG)).map(drop)
    }

    /// Keeps what the standard streams of `pid` are.
    pub fn keep_descriptors(&self, pid: i32) -> Result<()> {
        let mut streams = Vec::new();
        for fd in 0..3 {
            let link = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
            streams.push(match std::fs::read_link(&link) {
                Ok(target) => target.to_string_lossy().into_owned(),
                // Closed by the container's process.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(e) => return Err(e).on("readlink", link.display()),
            });
        }
        // A fifo would be waited for.
        let flags = file::O_WRONLY | file::O_CREAT | file::O_TRUNC | file::O_NOFOLLOW | file::O_NONBLOCK;
        let path = self.images.path.join(name(DESCRIPTORS));
        let fd = file::openat(self.images.fd.as_fd(), DESCRIPTORS, flags, 0o600).on("open", path.display())?;
        let text = serde_json::to_vec(&streams).map_err(|e| invalid("descriptors", e.to_string()))?;
        File::from(fd).write_all(&text).on("write", path.display())
    }

    /// The pipes among the standard streams of the dumped process become our own standard streams.
    pub fn inherit_descriptors(&self, options: &mut Message) -> Result<()> {
        let path = self.images.path.join(name(DESCRIPTORS));
        let flags = file::O_RDONLY | file::O_NOFOLLOW | file::O_NONBLOCK;
        let fd = match file::openat(self.images.fd.as_fd(), DESCRIPTORS, flags, 0) {
            Err(Errno::ENOENT) => {
                let why = format!("{} has no {}", self.images.path.display(), name(DESCRIPTORS).display());
                return Err(invalid(IMAGE, why).hint("is it the directory of a checkpoint?"));
            }
            other => other.on("open", path.display()).at_flag(IMAGE)?,
        };
        let mut text = Vec::new();
        File::from(fd).take(MOST_DESCRIPTORS).read_to_end(&mut text).on("read", path.display()).at_flag(IMAGE)?;
        let streams: Vec<String> = serde_json::from_slice(&text)
            .map_err(|e| invalid(path.display().to_string(), format!("is not the list of a checkpoint: {e}")))?;
        for (fd, stream) in (0..3).zip(streams.iter()) {
            if is_pipe(stream) {
                options.message(opt::INHERIT_FD, &inherit_fd(stream, fd));
            }
        }
        Ok(())
    }

    /// What CRIU said last of errors, and where the whole log is.
    pub fn errors(&self, log: &CStr) -> Option<Error> {
        let flags = file::O_RDONLY | file::O_NOFOLLOW | file::O_NONBLOCK;
        let fd = file::openat(self.logs().fd.as_fd(), log, flags, 0).ok()?;
        let mut file = File::from(fd);
        let mut text = Vec::new();
        // Without its beginning it says as much; without any of it, CRIU's answer is what is left.
        let _ = file.seek(SeekFrom::End(-LOG_TAIL)).or_else(|_| file.seek(SeekFrom::Start(0)));
        let _ = file.take(LOG_TAIL as u64).read_to_end(&mut text);
        let lines = error_lines(&String::from_utf8_lossy(&text));
        let path = self.logs().path.join(name(log));
        let said = if lines.is_empty() { "has no line with an error".to_string() } else { lines.join(" | ") };
        Some(Error::new(Kind::System, said).at(path.display().to_string()))
    }
}

const IMAGE: &str = "--image-path";
const WORK: &str = "--work-path";

impl Directory {
    fn open(path: &Path, flag: &'static str) -> Result<Directory> {
        let name = c_string(path.as_os_str().as_bytes(), flag)?;
        let fd = file::open(&name, file::O_RDONLY | file::O_DIRECTORY, 0).on("open", path.display()).at_flag(flag)?;
        Ok(Directory { path: path.to_path_buf(), name, fd })
    }

    fn refuse_links(&self) -> Result<()> {
        let mut buf = vec![0; 32 * 1024];
        loop {
            let n = file::read_dir(self.fd.as_fd(), &mut buf).on("read", self.path.display()).at_flag(IMAGE)?;
            if n == 0 {
                return Ok(());
            }
            for entry in file::entries(buf.get(..n).unwrap_or_default()) {
                if entry != PARENT && is_link(self.fd.as_fd(), entry) {
                    let path = self.path.join(name(entry));
                    return Err(invalid(IMAGE, format!("{} is a symbolic link", path.display()))
                        .hint("CRIU makes none but \"parent\": do not trust these images"));
                }
            }
        }
    }
}

fn is_link(dir: BorrowedFd, entry: &CStr) -> bool {
    file::lstatat(dir, entry).is_ok_and(|stat| stat.mode & file::S_IFMT == file::S_IFLNK)
}

fn name(name: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// Exactly what the kernel calls a pipe: another key of CRIU's would mean another thing.
fn is_pipe(stream: &str) -> bool {
    let inode = stream.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
    inode.is_some_and(|inode| !inode.is_empty() && inode.bytes().all(|b| b.is_ascii_digit()))
}

/// The last lines of a log that tell of errors, without their times.
fn error_lines(log: &str) -> Vec<String> {
    let mut last: Vec<String> = log
        .lines()
        .rev()
        .filter(|line| line.contains("Error"))
        .take(LOG_LINES)
        .map(|line| {
            let said = line.split_once(") ").filter(|(time, _)| time.starts_with('(')).map_or(line, |(_, said)| said);
            said.trim().chars().take(LOG_LINE).collect()
        })
        .collect();
    last.reverse();
    last
}

/// The flag at fault.
trait AtFlag<T> {
    fn at_flag(self, flag: &str) -> Result<T>;
}

impl<T> AtFlag<T> for Result<T> {
    fn at_flag(self, flag: &str) -> Result<T> {
        self.map_err(|e: Error| e.at(flag).kind_of(Kind::Invalid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::wire::{Value, parse};
    use std::os::unix::fs::symlink;

    fn images() -> (tempfile::TempDir, Images) {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::make(&dir.path().join("a/b"), None).unwrap();
        (dir, images)
    }

    #[test]
    fn the_standard_streams_are_kept_and_pipes_are_inherited() {
        let (dir, images) = images();
        let path = dir.path().join("a/b/descriptors.json");
        images.keep_descriptors(std::process::id() as i32).unwrap();
        let kept: Vec<String> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[0], std::fs::read_link("/proc/self/fd/0").unwrap().to_string_lossy());

        let odd = r#"["/dev/null","pipe:[12]","extRootNetNS pipe:[3]","pipe:[4]"]"#;
        std::fs::write(&path, odd).unwrap();
        let mut options = Message::new();
        images.inherit_descriptors(&mut options).unwrap();
        let expected = inherit_fd("pipe:[12]", 1);
        assert_eq!(parse(options.bytes()).unwrap(), [(opt::INHERIT_FD, Value::Bytes(expected.bytes()))]);
        for bad in ["", "{}", "[1]"] {
            std::fs::write(&path, bad).unwrap();
            assert!(images.inherit_descriptors(&mut options).is_err(), "{bad}");
        }
        std::fs::remove_file(&path).unwrap();
        let e = images.inherit_descriptors(&mut options).unwrap_err().to_string();
        assert!(e.contains("--image-path") && e.contains("descriptors.json"), "{e}");
    }

    #[test]
    fn links_in_the_images_are_refused() {
        let (dir, images) = images();
        let (there, victim) = (dir.path().join("a/b"), dir.path().join("victim"));
        std::fs::write(&victim, "untouched").unwrap();
        symlink("../parent", there.join("parent")).unwrap();
        assert!(Images::open(&there, None).is_ok());
        for link in ["restore.log", "descriptors.json", "core-1.img"] {
            symlink(&victim, there.join(link)).unwrap();
            let e = Images::open(&there, None).unwrap_err().to_string();
            assert!(e.contains(link) && e.contains("symbolic link"), "{e}");
            std::fs::remove_file(there.join(link)).unwrap();
        }
        // One that appears later is not followed either.
        for link in ["dump.log", "descriptors.json"] {
            symlink(&victim, there.join(link)).unwrap();
        }
        assert!(images.keep_descriptors(std::process::id() as i32).is_err());
        assert!(images.inherit_descriptors(&mut Message::new()).is_err());
        assert!(images.name(c"dump.log", &mut Message::new()).is_err());
        assert!(images.errors(c"dump.log").is_none());
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    }

    #[test]
    fn what_criu_writes_into_the_work_directory_is_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        let images = Images::make(&dir.path().join("images"), Some(&work)).unwrap();
        // Others may keep links of their own there.
        symlink("/nowhere", work.join("attach")).unwrap();
        images.name(c"dump.log", &mut Message::new()).unwrap();
        for link in ["dump.log", "stats-dump", "stats-restore"] {
            symlink("/nowhere", work.join(link)).unwrap();
            let e = images.name(c"dump.log", &mut Message::new()).unwrap_err().to_string();
            assert!(e.contains(link) && e.contains("is not a regular file"), "{e}");
            std::fs::remove_file(work.join(link)).unwrap();
        }
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let (dir, images) = images();
        for fifo in [DESCRIPTORS, c"dump.log"] {
            file::mknodat(images.images.fd.as_fd(), fifo, file::S_IFIFO | 0o600, 0).unwrap();
        }
        let e = images.keep_descriptors(std::process::id() as i32).unwrap_err().to_string();
        assert!(e.contains("descriptors.json") && dir.path().exists(), "{e}");
        assert!(images.errors(c"dump.log").unwrap().to_string().ends_with("has no line with an error"));
    }

    #[test]
    fn the_parent_is_a_directory_beside() {
        let (dir, images) = images();
        std::fs::create_dir(dir.path().join("a/before")).unwrap();
        std::fs::write(dir.path().join("a/file"), "").unwrap();
        assert!(images.check_parent(Path::new("../before")).is_ok());
        for bad in ["/a", "../none", "../file", ""] {
            let e = images.check_parent(Path::new(bad)).unwrap_err().to_string();
            assert!(e.starts_with("--parent-path: "), "{e}");
        }
    }

    #[test]
    fn an_error_has_the_last_lines_of_the_log() {
        let (dir, images) = images();
        let mut log: String =
            (0..9).map(|i| format!("(00.00000{i}) Error (criu/x.c:{i}): no {i}\n(1) Warn\n")).collect();
        log.push_str("(00.1)      7: Error (criu/y.c:1): last\n");
        std::fs::write(dir.path().join("a/b/dump.log"), log).unwrap();
        let said = images.errors(c"dump.log").unwrap().to_string();
        let (path, lines) = said.split_once(": ").unwrap();
        assert_eq!(Path::new(path), dir.path().join("a/b/dump.log"));
        assert_eq!(lines.split(" | ").count(), LOG_LINES);
        assert!(lines.starts_with("Error (criu/x.c:5): no 5 | "), "{lines}");
        assert!(lines.ends_with(" | 7: Error (criu/y.c:1): last"), "{lines}");
        assert!(images.errors(c"restore.log").is_none());
    }
}
