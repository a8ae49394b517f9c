//! The start of a program: C's `main` in place of Rust's, which makes fifteen system calls before ours is called, and as many again
//! after the execution of the sealed copy.

use crate::{Result, fds, file, poll};
use libc::{c_char, c_int};
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Defines the C `main` of a program that is `#![no_main]`, which ends with the status that the named `fn(&[OsString]) -> u8` gives. That
/// one calls [`crate::start::ready`] before it opens a file.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(count: $crate::start::Count, words: $crate::start::Words) -> $crate::start::Count {
            $crate::start::main(count, words, $main)
        }
    };
}

/// C's `int`.
pub type Count = c_int;
/// C's `char **`: nobody but whoever calls C's `main` can make one.
#[derive(Debug)]
#[repr(transparent)]
pub struct Words(*const *const c_char);

/// What [`crate::program`] expands to a call of: `words` are the arguments as C's `main` gets them.
pub fn main(count: Count, words: Words, program: fn(&[OsString]) -> u8) -> Count {
    // SAFETY: C's `main` gets this many pointers to strings that last as long as the process.
    let word = |i: c_int| unsafe { CStr::from_ptr(*words.0.add(i as usize)) };
    let argv: Vec<OsString> = (0..count).map(|i| OsStr::from_bytes(word(i).to_bytes()).to_os_string()).collect();
    program(&argv).into()
}

/// What else Rust's start-up does that a program relies on. The null device in place of a standard stream that our caller has closed:
/// the next file that we open would have its number. A reader that has gone is an error of write(2), not the end.
pub fn ready() -> Result<()> {
    for _ in poll::closed(fds::stdio())?.into_iter().filter(|closed| *closed) {
        file::open_for_good(c"/dev/null", file::O_RDWR)?;
    }
    // SAFETY: SIG_IGN is no function of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}
