//! System calls, counted by strace in a file for each process.

use crate::Result;
use crate::lab::{Lab, Runtime, reap_all, rest};
use orlop_sys::bpf::Insn;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The program in the container: how many calls it makes is libc's business and not counted.
pub const PROGRAM: &str = "/bin/static-true";

/// How often a command entered the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// The runtime, and the processes made by it up to the execve(2) of the program.
    pub runtime: usize,
    /// The program in the container.
    pub program: usize,
    /// Of the runtime's those that do not vary from one run to the next.
    pub steady: usize,
}

/// Calls that come and go with the lengths of ids and pids: the allocator's.
const OF_MEMORY: &[&str] = &["brk", "madvise", "mmap", "mremap", "munmap"];

/// Calls of a loop that waits: how often it turns depends on which of two events the kernel tells first.
const OF_WAITING: &[&str] = &["poll", "ppoll", "restart_syscall", "wait4", "waitid"];

/// A read of a signalfd: of its one structure, or of none.
const OF_SIGNALS: &[&str] = &[", 128) = 128", "= -1 EAGAIN (Resource temporarily unavailable)"];

/// Counts the calls of which a command makes the same number each time. Reads that follow one another count as one: how many
/// a file of /proc takes depends on its length.
fn steady(lines: &[&str]) -> usize {
    let name = |line: &&&str| line.split('(').next().unwrap_or_default().to_owned();
    let counts = |line: &&&str| !OF_MEMORY.contains(&name(line).as_str()) && !OF_WAITING.contains(&name(line).as_str());
    let of_signals = |line: &&&str| line.starts_with("read(") && OF_SIGNALS.iter().any(|end| line.ends_with(end));
    let lines: Vec<&&str> = lines.iter().filter(counts).filter(|line| !of_signals(line)).collect();
    let read = |line: &&str| line.starts_with("read(").then(|| line.split(',').next().map(str::to_owned)).flatten();
    let repeated = lines.windows(2).filter(|pair| read(pair[0]).is_some() && read(pair[0]) == read(pair[1])).count();
    lines.len() - repeated
}

/// The commands that are counted, in the order of the results.
pub const COMMANDS: &[&str] = &["run", "run-docker", "create", "start", "state", "exec", "kill", "delete"];

/// Counts the calls of every command. `create` counts its init to the end, which `start` lets go on; the signal of `kill` is one that
/// does nothing, since whether a process that dies is dead already would be seen.
pub fn count(lab: &Lab, runtime: &Runtime) -> Result<Vec<(&'static str, Calls)>> {
    let (config, sleep) = (lab.default_config(), ["sleep", "100000"]);
    let ending = lab.bundle_of("trace", config.clone(), &[PROGRAM])?;
    let running = lab.bundle_of("trace-sleep", config, &sleep)?;
    let docker = lab.bundle_of("trace-docker", lab.docker_config()?, &[PROGRAM])?;
    let of = |args: &[&str]| runtime.command(args);

    let id = lab.id();
    let run = Trace::start(lab, &of(&["run", "--bundle", utf8(&ending)?, &id]), &[])?.end()?;
    let id = lab.id();
    let run_docker = Trace::start(lab, &of(&["run", "--bundle", utf8(&docker)?, &id]), &[])?.end()?;

    let id = lab.id();
    let create = Trace::start(lab, &of(&["create", "--bundle", utf8(&ending)?, &id]), &[])?;
    create.wait_for_first()?;
    let start = Trace::start(lab, &of(&["start", &id]), &[])?.end()?;
    let create = create.end()?;
    let delete = Trace::start(lab, &of(&["delete", &id]), &[])?.end()?;

    let (_, container) = lab.create(runtime, &running)?;
    lab.call(runtime, ["start", &container.id])?;
    let state = Trace::start(lab, &of(&["state", &container.id]), &[])?.end()?;
    let exec = Trace::start(lab, &of(&["exec", &container.id, PROGRAM]), &[])?.end()?;
    let kill = Trace::start(lab, &of(&["kill", &container.id, "CONT"]), &[])?.end()?;
    lab.call(runtime, ["delete", "--force", &container.id])?;
    reap_all();
    Ok(COMMANDS
        .iter()
        .copied()
        .zip([run, run_docker, create, start, state, exec, kill, delete].map(|lines| calls(&lines)))
        .collect())
}

/// Counts the calls of the floor program.
pub fn count_floor(lab: &Lab) -> Result<Calls> {
    Ok(calls(&Trace::start(lab, &lab.floor_command(None, PROGRAM), &[])?.end()?))
}

/// The seccomp programs that a `run` of this bundle sets, each as its instructions (code, jt, jf, k).
pub fn filters(lab: &Lab, runtime: &Runtime, bundle: &Path) -> Result<Vec<Vec<Insn>>> {
    rest();
    let command = runtime.command(["run", "--bundle", utf8(bundle)?, &lab.id()]);
    let options = ["--trace=seccomp,prctl", "-v", "-X", "raw", "-s", "1"];
    let processes = Trace::start(lab, &command, &options)?.end()?;
    let lines = processes.iter().flat_map(|text| text.lines());
    Ok(lines
        .filter_map(|line| line.split_once("filter=["))
        .map(|(_, rest)| parse_filter(rest))
        .filter(|f| !f.is_empty())
        .collect())
}

/// Reads `BPF_STMT(0|0|0x20, 0x4), BPF_JUMP(0x5|0|0x10, 0xc000003e, 0x1, 0), ...]`.
fn parse_filter(text: &str) -> Vec<Insn> {
    let number = |text: &str| match text.trim().strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.trim().parse().ok(),
    };
    let one = |text: &str| {
        let mut fields = text.split(',');
        let code = fields.next()?.split('|').map(number).try_fold(0, |all, bits| Some(all | bits?))?;
        let mut rest = fields.map(|field| number(field).unwrap_or_default());
        let (k, jt, jf) = (rest.next()?, rest.next().unwrap_or_default(), rest.next().unwrap_or_default());
        Some(Insn { code: code as u16, jt: jt as u8, jf: jf as u8, k })
    };
    let list = text.split(']').next().unwrap_or_default();
    list.split("BPF_").filter_map(|item| one(item.split_once('(')?.1.split(')').next()?)).collect()
}

/// A running strace, and where it writes.
struct Trace {
    child: Child,
    dir: PathBuf,
}

impl Trace {
    fn start(lab: &Lab, command: &[OsString], options: &[&str]) -> Result<Self> {
        let dir = lab.file(&format!("{}.trace", lab.id()));
        fs::create_dir(&dir)?;
        let strace = crate::lab::search(OsStr::new("strace")).ok_or("no strace here")?;
        let child = Command::new(strace)
            .args(["--follow-forks", "--output-separately"])
            .args(options)
            .arg("-o")
            .arg(dir.join("p"))
            .args(command)
            // The counts shall not depend on whoever calls.
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, dir })
    }

    /// Waits until the first process has ended, and those that it made have not.
    fn wait_for_first(&self) -> Result<()> {
        until(|| {
            let text = self.texts()?.into_iter().find(|text| text.starts_with("execve("));
            Ok(text.is_some_and(|text| text.contains("+++ exited")))
        })
    }

    /// Waits for the end of all processes and gives what each did.
    fn end(mut self) -> Result<Vec<String>> {
        let mut status = None;
        let ended = until(|| {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        });
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        ended?;
        let texts = self.texts()?;
        fs::remove_dir_all(&self.dir)?;
        match status {
            Some(status) if status.success() => Ok(texts),
            _ => Err(format!(
                "a traced command failed: {status:?}: {}",
                texts.first().and_then(|t| t.lines().next()).unwrap_or_default()
            )
            .into()),
        }
    }

    fn texts(&self) -> Result<Vec<String>> {
        fs::read_dir(&self.dir)?
            .flatten()
            .map(|file| Ok(String::from_utf8_lossy(&fs::read(file.path())?).into_owned()))
            .collect()
    }
}

fn until(mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition()? {
        if Instant::now() > deadline {
            return Err("a traced command did not end within a minute".into());
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn calls(processes: &[String]) -> Calls {
    let mut calls = Calls::default();
    for text in processes {
        let lines: Vec<&str> = text.lines().filter(|line| is_call(line)).collect();
        let exec =
            lines.iter().position(|line| line.starts_with("execve") && line.contains(PROGRAM) && line.ends_with("= 0"));
        let runtime = exec.filter(|index| *index > 0).map_or(lines.len(), |index| index + 1);
        calls.runtime += runtime;
        calls.steady += steady(&lines[..runtime]);
        calls.program += lines.len() - runtime;
    }
    calls
}

/// Not a signal, nor an exit.
fn is_call(line: &str) -> bool {
    let name: &str = line.split('(').next().unwrap_or_default();
    line.contains('(') && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "a path that is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_up_to_the_program() {
        let parent = "execve(\"/x/orlop\", [\"orlop\"], 0x7 /* 1 var */) = 0\nbrk(NULL) = 0x5\n--- SIGCHLD {si_signo=SIGCHLD} ---\nexit_group(0) = ?\n+++ exited with 0 +++\n".to_owned();
        let child = "mount(\"a\", \"b\") = 0\nexecve(\"/bin/static-true\", [\"/bin/static-true\"], 0x5) = 0\nbrk(NULL) = 0x1\nexit_group(0) = ?\n".to_owned();
        assert_eq!(calls(&[parent, child]), Calls { runtime: 5, program: 2, steady: 4 });
    }

    #[test]
    fn what_varies_is_not_steady() {
        let once = [
            "openat(AT_FDCWD, \"/proc/1/stat\", O_RDONLY) = 4",
            "read(4, \"1 (a\", 64) = 64",
            "read(4, \"\", 64) = 0",
            "close(4) = 0",
        ];
        let more = [
            once[0],
            "mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0) = 0x7f",
            once[1],
            "munmap(0x7f, 4096) = 0",
            "read(4, \"2\", 64) = 64",
            once[2],
            once[3],
            "poll([{fd=3, events=POLLIN}], 1, -1) = 1",
            "read(3, \"\\21\", 128) = 128",
            "read(3, 0x7ff, 128) = -1 EAGAIN (Resource temporarily unavailable)",
        ];
        assert_eq!([steady(&once), steady(&more)], [3, 3]);
        assert_eq!(steady(&[once[0], once[1], "read(5, \"\", 64) = 0", once[3]]), 4);
    }

    #[test]
    fn filters_are_read_as_strace_prints_them() {
        let text =
            "BPF_STMT(0|0|0x20, 0x4), BPF_JUMP(0x5|0|0x10, 0xc000003e, 0x1, 0), BPF_STMT(0x6|0, 0x7fff0000)]}) = 0";
        let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
        assert_eq!(
            parse_filter(text),
            [insn(0x20, 0, 0, 4), insn(0x15, 1, 0, 0xc000_003e), insn(6, 0, 0, 0x7fff_0000)]
        );
    }
}
