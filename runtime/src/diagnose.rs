//! Why an executable file cannot be executed: what execve(2)'s errno leaves unsaid.

use orlop_sys::file;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A hint about the program at this path of the container, or `None` when its file tells nothing. It is read below the rootfs as the
/// host sees it: without the mounts of the container.
pub fn program(rootfs: &Path, program: &CStr) -> Option<String> {
    let root = CString::new(rootfs.as_os_str().as_bytes()).ok()?;
    let root = file::open(&root, file::O_PATH | file::O_DIRECTORY, 0).ok()?;
    let fd = open(&root, program)?;
    let mut head = [0u8; 4096];
    let n = file::read(fd.as_fd(), &mut head).ok()?;
    let head = head.get(..n)?;
    if head.starts_with(b"\x7fELF") { elf(&root, head) } else { script(&root, head) }
}

fn open(root: &OwnedFd, path: &CStr) -> Option<OwnedFd> {
    let flags = file::O_RDONLY | file::O_NONBLOCK | file::O_NOCTTY;
    let fd = file::openat2(root.as_fd(), path, flags, 0, file::IN_ROOT).ok()?;
    file::fstat(fd.as_fd()).ok()?.is_file().then_some(fd)
}

/// The first line of a script names its interpreter (execve(2), "Interpreter scripts").
fn script(root: &OwnedFd, head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return Some("the file is empty".into());
    }
    let Some(line) = head.strip_prefix(b"#!") else {
        return Some("the file is neither an ELF program nor a script with a #! line".into());
    };
    let line = line.split(|b| *b == b'\n').next()?;
    let interpreter = line.trim_ascii().split(|b| matches!(b, b' ' | b'\t')).next()?;
    if line.ends_with(b"\r") {
        return Some("the #! line ends in a carriage return: the file has Windows line ends".into());
    }
    missing(root, interpreter, "the script's interpreter")
}

/// e_machine (elf(5)) of what orlop is built for, and the names of others.
const MACHINES: &[(u16, &str)] = &[
    (3, "i386"),
    (8, "mips"),
    (20, "ppc"),
    (21, "ppc64"),
    (22, "s390"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv"),
    (258, "loongarch"),
];

fn elf(root: &OwnedFd, head: &[u8]) -> Option<String> {
    let class64 = *head.get(4)? == 2;
    let machine = u16::from_le_bytes([*head.get(18)?, *head.get(19)?]);
    let name = MACHINES.iter().find(|(n, _)| *n == machine).map_or("another machine", |(_, name)| name);
    let host = std::env::consts::ARCH;
    let runs = name == host || matches!((host, name), ("x86_64", "i386") | ("aarch64", "arm"));
    if !runs {
        return Some(format!("the program is for {name}, this host is {host}"));
    }
    let field = |at: usize, len: usize| head.get(at..at + len).map(le);
    let (table, size, count) = match class64 {
        true => (field(32, 8)?, field(54, 2)?, field(56, 2)?),
        false => (field(28, 4)?, field(42, 2)?, field(44, 2)?),
    };
    const PT_INTERP: u64 = 3;
    for i in 0..count.min(64) {
        let at = usize::try_from(table + i * size).ok()?;
        if field(at, 4)? != PT_INTERP {
            continue;
        }
        let (offset, length) =
            if class64 { (field(at + 8, 8)?, field(at + 32, 8)?) } else { (field(at + 4, 4)?, field(at + 16, 4)?) };
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        let path = head.get(offset..offset.checked_add(length)?)?;
        return missing(root, path.strip_suffix(b"\0").unwrap_or(path), "the program's loader (ELF interpreter)");
    }
    None
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn missing(root: &OwnedFd, path: &[u8], what: &str) -> Option<String> {
    let name = CString::new(path).ok()?;
    let gone = open(root, &name).is_none();
    gone.then(|| format!("{what} {:?} is not in the container", String::from_utf8_lossy(path)))
}
