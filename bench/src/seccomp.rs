//! What a seccomp profile costs: to compile, and at every system call of the container.

use crate::Result;
use crate::footprint::Row;
use crate::lab::Lab;
use crate::stats::median;
use crate::trace::filters;
use libc as c;
use oci_spec::runtime::LinuxSeccomp;
use orlop_sys::bpf::Insn;
use std::time::Instant;

/// Fifty calls of which servers, shells and interpreters make the most, of those that x86_64 and arm64 both have.
const FREQUENT: [i64; 50] = [
    c::SYS_read,
    c::SYS_write,
    c::SYS_close,
    c::SYS_fstat,
    c::SYS_lseek,
    c::SYS_mmap,
    c::SYS_mprotect,
    c::SYS_munmap,
    c::SYS_brk,
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_ioctl,
    c::SYS_pread64,
    c::SYS_pwrite64,
    c::SYS_readv,
    c::SYS_writev,
    c::SYS_sched_yield,
    c::SYS_madvise,
    c::SYS_nanosleep,
    c::SYS_getpid,
    c::SYS_socket,
    c::SYS_connect,
    c::SYS_sendto,
    c::SYS_recvfrom,
    c::SYS_sendmsg,
    c::SYS_recvmsg,
    c::SYS_shutdown,
    c::SYS_setsockopt,
    c::SYS_getsockopt,
    c::SYS_execve,
    c::SYS_wait4,
    c::SYS_kill,
    c::SYS_fcntl,
    c::SYS_fsync,
    c::SYS_getcwd,
    c::SYS_gettid,
    c::SYS_futex,
    c::SYS_getdents64,
    c::SYS_clock_gettime,
    c::SYS_clock_nanosleep,
    c::SYS_epoll_ctl,
    c::SYS_epoll_pwait,
    c::SYS_openat,
    c::SYS_newfstatat,
    c::SYS_faccessat,
    c::SYS_ppoll,
    c::SYS_accept4,
    c::SYS_pipe2,
    c::SYS_getrandom,
    c::SYS_statx,
];

/// What the kernel says the architecture is, linux/audit.h.
const AUDIT_ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

/// How long it takes to compile Docker's profile, median, in µs. None in a build that is not optimised.
pub fn compile_time(lab: &Lab) -> Result<Option<f64>> {
    if cfg!(debug_assertions) {
        return Ok(None);
    }
    let config = lab.docker_config()?;
    let profile: LinuxSeccomp = serde_json::from_value(config["linux"]["seccomp"].clone())?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let program = orlop::plan::seccomp::compile(&profile);
        times.push(began.elapsed().as_secs_f64() * 1e6);
        program.map_err(|error| error.to_string())?;
    }
    Ok(Some(median(&times)))
}

/// For each runtime: how many instructions its filter for Docker's profile has, and how many are executed at a call, mean over
/// [`FREQUENT`] with all arguments 0.
pub fn instructions(lab: &Lab) -> Result<[Row; 2]> {
    let bundle = lab.bundle("filters", lab.docker_config()?)?;
    let [mut length, mut mean] = [Row::new(), Row::new()];
    for runtime in &lab.runtimes {
        let programs = filters(lab, runtime, &bundle)?;
        if programs.is_empty() {
            return Err(format!("{} set no filter", runtime.name).into());
        }
        length.insert(runtime.name.clone(), Some(programs.iter().map(Vec::len).sum::<usize>() as f64));
        let executed: Option<usize> = FREQUENT
            .iter()
            .map(|number| programs.iter().map(|p| execute(p, *number as u32)).sum::<Option<usize>>())
            .sum();
        mean.insert(runtime.name.clone(), executed.map(|sum| sum as f64 / FREQUENT.len() as f64));
    }
    Ok([length, mean])
}

/// Runs a filter for a call and counts the instructions, the return among them. None: not a program that seccomp(2) takes.
fn execute(program: &[Insn], number: u32) -> Option<usize> {
    let (mut at, mut count, mut a, mut x) = (0_usize, 0, 0_u32, 0_u32);
    let mut memory = [0_u32; 16];
    loop {
        let insn = program.get(at)?;
        (at, count) = (at + 1, count + 1);
        let operand = if insn.code & 8 == 0 { insn.k } else { x };
        let mut jump = |holds: bool| at += usize::from(if holds { insn.jt } else { insn.jf });
        // linux/bpf_common.h: the class is in the low three bits.
        match insn.code {
            // struct seccomp_data: number, architecture, then the instruction pointer and the arguments.
            0x20 => a = [number, AUDIT_ARCH].get(insn.k as usize / 4).copied().unwrap_or(0),
            0x06 | 0x16 => return Some(count),
            0x05 => at += insn.k as usize,
            0x15 | 0x1d => jump(a == operand),
            0x25 | 0x2d => jump(a > operand),
            0x35 | 0x3d => jump(a >= operand),
            0x45 | 0x4d => jump(a & operand != 0),
            0x54 | 0x5c => a &= operand,
            0x44 | 0x4c => a |= operand,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x00 => a = insn.k,
            0x01 => x = insn.k,
            0x07 => x = a,
            0x87 => a = x,
            0x02 => *memory.get_mut(insn.k as usize)? = a,
            0x03 => *memory.get_mut(insn.k as usize)? = x,
            0x60 => a = *memory.get(insn.k as usize)?,
            0x61 => x = *memory.get(insn.k as usize)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_executed_as_the_kernel_does() {
        let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
        // The architecture, then the number: 7 is told from the rest.
        let program = [
            insn(0x20, 0, 0, 4),
            insn(0x15, 1, 0, AUDIT_ARCH),
            insn(0x06, 0, 0, 0),
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, 7),
            insn(0x06, 0, 0, 1),
            insn(0x05, 0, 0, 1),
            insn(0x06, 0, 0, 3),
            insn(0x06, 0, 0, 2),
        ];
        assert_eq!([execute(&program, 7), execute(&program, 8)], [Some(5), Some(6)]);
        assert_eq!(execute(&program[..2], 7), None);
    }

    #[test]
    fn frequent_calls_are_fifty_different_ones() {
        let mut numbers = FREQUENT.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), FREQUENT.len());
    }
}
