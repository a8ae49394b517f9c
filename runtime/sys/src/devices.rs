//! bpf(2) for programs of type `BPF_PROG_TYPE_CGROUP_DEVICE`: what cgroup v2 has instead of the devices controller.

use crate::{Errno, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;
/// The kernel refuses a 65th program on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// One instruction, in the layout of `struct bpf_insn` (linux/bpf.h): opcode, registers, jump offset, immediate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation and source of the operand.
    pub code: u8,
    /// Destination register in the low four bits (little endian), source register in the high four.
    pub regs: u8,
    /// Jump distance in instructions, or displacement in bytes.
    pub off: i16,
    /// The immediate operand.
    pub imm: i32,
}

/// `union bpf_attr`, as words that are set by byte offset. It is larger than any command reads today and zero beyond
/// what is set: kernels 6.17 to 7.1 write the `revision` field of a query whatever size they are given.
#[repr(C, align(8))]
struct Attr([u32; 32]);

impl Attr {
    fn new() -> Attr {
        Attr([0; 32])
    }

    fn word(mut self, offset: usize, value: u32) -> Attr {
        if let Some(slot) = self.0.get_mut(offset / 4) {
            *slot = value;
        }
        self
    }

    fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Attr {
        self.word(offset, fd.as_raw_fd() as u32)
    }

    fn pointer(self, offset: usize, address: usize) -> Attr {
        let [low, high] = halves(address as u64);
        self.word(offset, low).word(offset + 4, high)
    }

    fn at(&self, offset: usize) -> u32 {
        self.0.get(offset / 4).copied().unwrap_or(0)
    }
}

/// A 64-bit value as the two words that it has in memory.
fn halves(value: u64) -> [u32; 2] {
    let (low, high) = (value as u32, (value >> 32) as u32);
    if cfg!(target_endian = "little") { [low, high] } else { [high, low] }
}

/// # Safety
/// Every pointer in `attr` must be valid for what the command reads or writes through it.
unsafe fn bpf(command: libc::c_long, attr: &mut Attr) -> Result<i32> {
    // SAFETY: `attr` is a live object of the size passed; the caller answers for the pointers inside.
    let n = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<Attr>()) };
    if n < 0 { Err(Errno::last()) } else { Ok(n as i32) }
}

/// A command that answers with a new fd (the kernel sets close-on-exec on it).
///
/// # Safety
/// As for [`bpf`].
unsafe fn bpf_fd(command: libc::c_long, attr: &mut Attr) -> Result<OwnedFd> {
    // SAFETY: the caller's promise is passed on; a non-negative answer of these commands is a new fd of ours.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd as RawFd)) }
}

/// Loads a device program. Kernels before 5.11 charge it to RLIMIT_MEMLOCK, which is therefore lifted for the time of
/// a second try.
pub fn load(program: &[Instruction]) -> Result<OwnedFd> {
    match load_once(program) {
        Err(Errno::EPERM) => with_memlock(|| load_once(program)),
        loaded => loaded,
    }
}

fn load_once(program: &[Instruction]) -> Result<OwnedFd> {
    let licence = c"Apache";
    let mut attr = Attr::new()
        .word(0, PROG_TYPE_CGROUP_DEVICE)
        .word(4, program.len() as u32)
        .pointer(8, program.as_ptr() as usize)
        .pointer(16, licence.as_ptr() as usize);
    // SAFETY: both pointers outlive the call, and the kernel reads `program.len()` instructions and a C string.
    unsafe { bpf_fd(PROG_LOAD, &mut attr) }
}

fn with_memlock<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    let mut old = all;
    // SAFETY: both point to live rlimit structs; a failure leaves `old` as it was and the limit unchanged.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut old) != 0 || libc::setrlimit(libc::RLIMIT_MEMLOCK, &all) != 0 {
            return Err(Errno::EPERM);
        }
    }
    let result = call();
    // SAFETY: `old` is a live rlimit struct. The limit must not be inherited by the container.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &old) };
    result
}

/// Attaches a program to a cgroup beside those that are there: a device is open only to whom all of them let in.
pub fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Attr::new().fd(0, cgroup).fd(4, program).word(8, CGROUP_DEVICE).word(12, ALLOW_MULTI);
    // SAFETY: no pointers inside.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Makes `program` the only device program of the cgroup: a single old one is exchanged in one step, so that there is
/// no moment with neither; several are taken off after the new one is on, which is no less strict in between.
/// Programs that a security module hides from us stay: they can only forbid more. Allocates.
pub fn replace(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let old = attached(cgroup)?;
    if let [only] = old.as_slice() {
        let mut attr = Attr::new()
            .fd(0, cgroup)
            .fd(4, program)
            .word(8, CGROUP_DEVICE)
            .word(12, ALLOW_MULTI | REPLACE)
            .fd(16, only.as_fd());
        // SAFETY: no pointers inside.
        return unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop);
    }
    attach(cgroup, program)?;
    for program in &old {
        let mut attr = Attr::new().fd(0, cgroup).fd(4, program.as_fd()).word(8, CGROUP_DEVICE);
        // SAFETY: no pointers inside.
        unsafe { bpf(PROG_DETACH, &mut attr) }?;
    }
    Ok(())
}

/// The device programs of a cgroup itself (not those of its ancestors) that we may open. Allocates.
pub fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attr = Attr::new()
        .fd(0, cgroup)
        .word(4, CGROUP_DEVICE)
        .pointer(16, ids.as_mut_ptr() as usize)
        .word(24, MAX_PROGRAMS as u32);
    // SAFETY: the kernel writes at most MAX_PROGRAMS ids to `ids`, which outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = attr.at(24) as usize;
    let mut programs = Vec::new();
    for id in ids.iter().take(count) {
        let mut attr = Attr::new().word(0, *id);
        // SAFETY: no pointers inside.
        match unsafe { bpf_fd(PROG_GET_FD_BY_ID, &mut attr) } {
            Ok(fd) => programs.push(fd),
            Err(Errno::EACCES | Errno::EPERM | Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(programs)
}
