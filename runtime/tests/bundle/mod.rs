//! A bundle of this test alone, made like those of Docker, and the look at what a command has left on the host.
#![allow(dead_code, reason = "every test file uses another part of it")]

use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The id of every container here: each bundle has a state root of its own.
pub(crate) const ID: &str = "faulty";

const APPLETS: [&str; 7] = ["sh", "cat", "echo", "false", "sleep", "true", "ls"];

/// A bundle with a busybox root file system, a state root and a cgroup name; all of it goes with the value.
pub(crate) struct Bundle {
    dir: tempfile::TempDir,
    cgroup: String,
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The exit status; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl Bundle {
    pub(crate) fn new() -> Bundle {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "out"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.expect("no busybox on this host: install Debian's busybox-static");
        fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        for name in ["resolv.conf", "hostname", "hosts"] {
            fs::write(dir.path().join(name), "made by the engine\n").unwrap();
        }
        let cgroup = format!("orlop-fault-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bundle = Bundle { dir, cgroup };
        bundle.write(&bundle.docker());
        bundle
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.root().join(ID)
    }

    pub(crate) fn cgroup_path(&self) -> String {
        format!("/{}", self.cgroup)
    }

    /// Makes this the configuration of the next container.
    pub(crate) fn write(&self, config: &Value) {
        fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    /// The same container as [`Bundle::docker`]'s, asleep.
    pub(crate) fn sleeping(&self) -> Value {
        let mut config = self.docker();
        config["process"]["args"] = json!(["sleep", "1000"]);
        config
    }

    /// What `docker run` asks for by default, and one hook of each kind. The program says that it works.
    pub(crate) fn docker(&self) -> Value {
        let capabilities = json!([
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE"
        ]);
        let device = |minor: u32, major: u32| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
        let file = |name: &str| {
            json!({"destination": format!("/etc/{name}"), "type": "bind", "source": self.path(name),
                "options": ["rbind", "rprivate"]})
        };
        let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 10}]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
                "args": ["sh", "-c", "echo works"],
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=orlop"],
                "cwd": "/",
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "oomScoreAdj": 0,
                "terminal": false
            },
            "root": {"path": "rootfs"},
            "hostname": "orlop",
            "hooks": {
                "prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
                "poststart": hook, "poststop": hook
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                    "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                    "options": ["ro", "nosuid", "noexec", "nodev"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                    "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                    "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]},
                file("resolv.conf"), file("hostname"), file("hosts")
            ],
            "linux": {
                "cgroupsPath": self.cgroup_path(),
                "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
                "resources": {
                    "devices": [
                        {"allow": false, "access": "rwm"},
                        device(5, 1), device(3, 1), device(9, 1), device(8, 1), device(0, 5), device(1, 5)
                    ],
                    "memory": {"disableOOMKiller": false},
                    "cpu": {"shares": 0}
                },
                "namespaces": [
                    {"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"}
                ],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ERRNO",
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
                    "syscalls": [
                        {"names": ALLOWED, "action": "SCMP_ACT_ALLOW"},
                        {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
                        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                            "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
                    ]
                },
                "maskedPaths": [
                    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"
                ],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
            }
        })
    }

    /// The command of a verb with its arguments; `create` and `run` get the bundle.
    pub(crate) fn command(&self, verb: &str, args: &[&str]) -> Vec<String> {
        let mut words: Vec<String> =
            [option_env!("CARGO_BIN_EXE_orlop").unwrap_or_default(), "--root", self.root().to_str().unwrap(), verb]
                .map(String::from)
                .into();
        if matches!(verb, "create" | "run") {
            words.extend(["--bundle".into(), self.path("").to_str().unwrap().into()]);
        }
        words.extend(args.iter().map(ToString::to_string));
        words
    }

    /// Runs a verb to its end. Its streams are files: a container's process keeps them open.
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    pub(crate) fn run(&self, verb: &str, args: &[&str]) -> Answer {
        let words = self.command(verb, args);
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("`{verb}` hangs: {}", fs::read_to_string(&err).unwrap());
            }
            std::thread::sleep(Duration::from_micros(300));
        };
        Answer {
            code: status.code(),
            stdout: fs::read_to_string(out).unwrap(),
            stderr: fs::read_to_string(err).unwrap(),
        }
    }

    /// `delete --force`, which must succeed whatever there is.
    pub(crate) fn delete(&self) -> Result<(), String> {
        let answer = self.run("delete", &["--force", ID]);
        if answer.ok() { Ok(()) } else { Err(format!("delete --force: {answer:?}")) }
    }

    /// The directories of the container's cgroup, in every hierarchy of the host.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let top = Path::new("/sys/fs/cgroup");
        let trees = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).chain([top.to_path_buf()]);
        trees.map(|tree| tree.join(&self.cgroup)).filter(|dir| dir.is_dir()).collect()
    }

    /// The processes in it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let lists = self.cgroups().into_iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        let mut pids: Vec<i32> =
            lists.flat_map(|l| l.lines().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// What is left of the container on the host, beside `mounts` that were there before.
    pub(crate) fn left(&self, mounts: &str) -> Vec<String> {
        let mut left: Vec<String> = self.cgroups().iter().map(|dir| format!("cgroup {dir:?}")).collect();
        if self.state_dir().exists() {
            left.push(format!(
                "state {:?}",
                fs::read_dir(self.state_dir()).map(|d| d.flatten().map(|e| e.file_name()).collect::<Vec<_>>())
            ));
        }
        left.extend(mountinfo().lines().filter(|line| !mounts.contains(line)).map(|line| format!("mount {line}")));
        left
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.state_dir().exists() {
            let _ = self.run("delete", &["--force", ID]);
        }
        for dir in self.cgroups() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Gives the thread of this test a mount namespace of its own: what is mounted by mistake is not mounted on the host.
pub(crate) fn private_mounts() {
    use orlop_sys::{mount, process};
    process::unshare(process::CLONE_NEWNS).expect("this test needs root");
    mount::mount(None, c"/", None, mount::MS_REC | mount::MS_PRIVATE, None).unwrap();
}

/// The mounts of this thread's mount namespace.
pub(crate) fn mountinfo() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
}

/// Whether the process is there, and not only as a zombie.
pub(crate) fn alive(pid: i32) -> bool {
    orlop::state::stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Waits for what must become true by itself.
pub(crate) fn soon(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    true
}

/// Why this is not one clear error line, if it is not.
pub(crate) fn unclear(stderr: &str) -> Option<String> {
    let lines: Vec<&str> = stderr.lines().collect();
    let [line] = lines.as_slice() else { return Some(format!("{} lines: {stderr:?}", lines.len())) };
    let message = line.split_once(" level=error msg=").map(|(_, message)| message.trim_matches('"'));
    match message {
        None => Some(format!("no line of level error: {line}")),
        Some(message) if message.len() < 15 || message.contains("panicked") => Some(format!("says nothing: {line}")),
        Some(_) => None,
    }
}

/// What busybox needs, and some more.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "accept",
    "accept4",
    "access",
    "alarm",
    "arch_prctl",
    "bind",
    "brk",
    "capget",
    "capset",
    "chdir",
    "chmod",
    "chown",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "close_range",
    "connect",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "eventfd",
    "eventfd2",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "fcntl",
    "fdatasync",
    "flock",
    "fork",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futex",
    "getcwd",
    "getdents",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getrandom",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "getsid",
    "getsockname",
    "getsockopt",
    "gettid",
    "gettimeofday",
    "getuid",
    "ioctl",
    "kill",
    "lchown",
    "link",
    "linkat",
    "listen",
    "lseek",
    "lstat",
    "madvise",
    "memfd_create",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "mlock",
    "mmap",
    "mprotect",
    "mremap",
    "msync",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pause",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "pselect6",
    "pwrite64",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmsg",
    "rename",
    "renameat",
    "renameat2",
    "restart_syscall",
    "rmdir",
    "rseq",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "sched_getaffinity",
    "sched_yield",
    "select",
    "sendfile",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "set_tid_address",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setitimer",
    "setpgid",
    "setpriority",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setrlimit",
    "setsid",
    "setsockopt",
    "setuid",
    "shutdown",
    "sigaltstack",
    "socket",
    "socketpair",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "symlinkat",
    "sync",
    "sysinfo",
    "tee",
    "tgkill",
    "time",
    "times",
    "truncate",
    "umask",
    "uname",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "vfork",
    "wait4",
    "waitid",
    "waitpid",
    "write",
    "writev",
];
