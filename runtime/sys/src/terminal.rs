//! Pseudoterminals: what the container's init does to make one, and what the runtime does to serve one.
//!
//! Nothing here allocates, so the child may call it between clone and exec.

use crate::{Errno, Result};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Rows and columns of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Opens a new pty master through `ptmx`, a path below `devpts`: the container's own devpts instance, so that the name of
/// the slave is the one that the container sees.
pub fn open_master(devpts: BorrowedFd<'_>, ptmx: &CStr) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: `ptmx` is NUL-terminated; the call returns a new fd or -1.
    let fd = Errno::result(unsafe { libc::openat(devpts.as_raw_fd(), ptmx.as_ptr(), flags) })?;
    // SAFETY: the kernel has just handed out this fd and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the slave be opened (TIOCSPTLCK).
pub fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const locked) }).map(drop)
}

/// Opens the slave of a master without a path (TIOCGPTPEER), so that no file in the container can stand in for it
/// (CVE-2025-52565).
pub fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new fd or -1.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) })?;
    // SAFETY: the kernel has just handed out this fd and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number N of the slave, `/dev/pts/N` in the devpts instance of the master (TIOCGPTN).
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut n: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes an unsigned int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut n) })?;
    Ok(n)
}

/// Sets the window size; the foreground process group of the terminal gets a SIGWINCH when it changed.
pub fn set_size(terminal: BorrowedFd<'_>, size: Size) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) }).map(drop)
}

/// The window size. ENOTTY: not a terminal.
pub fn size(terminal: BorrowedFd<'_>) -> Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) })?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Starts a session with `slave` as its controlling terminal. EPERM from setsid: the process leads a group already.
pub fn make_controlling(slave: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: setsid has no arguments.
    Errno::result(unsafe { libc::setsid() })?;
    // SAFETY: TIOCSCTTY takes a plain number: 0, do not steal another session's terminal.
    Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// Switches off that a pty turns `\n` into `\r\n` (ONLCR): the host's terminal does it, and a file or a pipe must get the
/// bytes that the process wrote.
pub fn keep_newlines(master: BorrowedFd<'_>) -> Result<()> {
    let mut modes = get_modes(master)?;
    modes.c_oflag &= !libc::ONLCR;
    set_modes(master, &modes)
}

/// Makes reads and writes of an fd that nobody else uses answer EAGAIN instead of waiting.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes an int.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// A terminal in raw mode, which is set back when this value is dropped.
pub struct RawMode {
    terminal: OwnedFd,
    saved: libc::termios,
}

impl RawMode {
    /// Every key goes to the container as it is, Ctrl-C too; output keeps its post-processing, because the container's pty
    /// has given up its own ([`keep_newlines`]). ENOTTY: not a terminal.
    pub fn enter(terminal: OwnedFd) -> Result<RawMode> {
        let saved = get_modes(terminal.as_fd())?;
        let mut raw = saved;
        // SAFETY: cfmakeraw changes the struct that it is given.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        raw.c_oflag |= libc::OPOST;
        set_modes(terminal.as_fd(), &raw)?;
        Ok(RawMode { terminal, saved })
    }

    /// The terminal itself.
    pub fn terminal(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has hung up has no mode to restore.
        let _ = set_modes(self.terminal.as_fd(), &self.saved);
    }
}

fn get_modes(terminal: BorrowedFd<'_>) -> Result<libc::termios> {
    let mut modes = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: `modes` has room for the struct that tcgetattr writes.
    Errno::result(unsafe { libc::tcgetattr(terminal.as_raw_fd(), modes.as_mut_ptr()) })?;
    // SAFETY: tcgetattr succeeded, so it filled the struct.
    Ok(unsafe { modes.assume_init() })
}

fn set_modes(terminal: BorrowedFd<'_>, modes: &libc::termios) -> Result<()> {
    // SAFETY: tcsetattr reads a whole termios.
    Errno::result(unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, modes) }).map(drop)
}
