//! Whole files in the fewest calls. std opens with open(2), to which musl adds an fcntl(2), and reads once more after the end.

use orlop_sys::{Errno, fds, file};
use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn open(path: &Path, flags: i32) -> io::Result<fds::Left> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    file::open(&path, flags, 0o600).map(fds::Left::from).map_err(errno)
}

fn errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

/// Reads a file; a regular one of the size that it says with one read(2).
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let fd = open(path, file::O_RDONLY)?;
    let stat = file::fstat(fd.as_fd()).map_err(errno)?;
    let size = if stat.is_file() { usize::try_from(stat.size).unwrap_or(0) } else { 0 };
    // Room for one byte more: a read that leaves it free has come to the end.
    let mut text = vec![0; size + 1];
    let mut held = 0;
    loop {
        if held == text.len() {
            text.resize(text.len().max(2048) * 2, 0);
        }
        let n = file::read(fd.as_fd(), text.get_mut(held..).unwrap_or_default()).map_err(errno)?;
        held += n;
        if n == 0 || (held == size && held < text.len()) {
            text.truncate(held);
            return Ok(text);
        }
    }
}

/// Reads a file of procfs that is known to be shorter than a page: it comes with one read(2).
pub fn read_short(path: &Path) -> io::Result<Vec<u8>> {
    const PAGE: usize = 4096;
    let fd = open(path, file::O_RDONLY)?;
    let mut text = vec![0; PAGE];
    let n = file::read(fd.as_fd(), &mut text).map_err(errno)?;
    text.truncate(n);
    Ok(text)
}

/// Writes a file, opened with `flags`; one that is made is its owner's alone.
pub fn write(path: &Path, flags: i32, data: &[u8]) -> io::Result<()> {
    let fd = open(path, file::O_WRONLY | flags)?;
    let mut rest = data;
    while !rest.is_empty() {
        let n = file::write(fd.as_fd(), rest).map_err(errno)?;
        rest = rest.get(n..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_size_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for size in [0, 1, 4095, 4096, 4097, 200_000] {
            let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
            write(&path, file::O_CREAT | file::O_TRUNC, &data).unwrap();
            assert_eq!(read(&path).unwrap(), data);
        }
        assert_eq!(write(&path, file::O_CREAT | file::O_EXCL, b"").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(read(&dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn files_without_a_size_are_read_to_their_end() {
        let own = Path::new("/proc/self/mountinfo");
        assert_eq!(read(own).unwrap(), std::fs::read(own).unwrap());
        assert!(
            read_short(Path::new("/proc/self/stat")).unwrap().starts_with(std::process::id().to_string().as_bytes())
        );
    }
}
