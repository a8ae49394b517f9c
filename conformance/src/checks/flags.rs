//! Every flag of runc 1.5 is taken: those of its help, its hidden ones, and both spellings of each.

use crate::check::{Check, Outcome};
use crate::runtime::Lab;

/// A command, and its flags: `name` for a switch, `name=value` with a value that is a good one. Letters have one dash.
#[rustfmt::skip]
const FLAGS: &[(&str, &[&str])] = &[
    (
        "checkpoint",
        &[
            "image-path=x", "work-path=x", "parent-path=x", "leave-running", "tcp-established", "tcp-skip-in-flight",
            "link-remap", "ext-unix-sk", "shell-job", "lazy-pages", "status-fd=1", "page-server=a:1", "file-locks",
            "pre-dump", "manage-cgroups-mode=soft", "empty-ns=network", "auto-dedup",
        ],
    ),
    (
        "create",
        &[
            "bundle=x", "b=x", "console-socket=x", "pidfd-socket=x", "pid-file=x", "no-pivot", "no-new-keyring",
            "preserve-fds=1",
        ],
    ),
    ("delete", &["force", "f"]),
    ("events", &["interval=1s", "stats"]),
    (
        "exec",
        &[
            "console-socket=x", "pidfd-socket=x", "cwd=x", "env=A=b", "e=A=b", "tty", "t", "user=1:2", "u=1:2",
            "additional-gids=1", "g=1", "process=x", "p=x", "detach", "d", "pid-file=x", "process-label=x", "apparmor=x",
            "no-new-privs", "cap=CAP_CHOWN", "c=CAP_CHOWN", "preserve-fds=1", "cgroup=memory:x", "ignore-paused",
        ],
    ),
    ("features", &[]),
    ("kill", &["all", "a"]),
    ("list", &["format=json", "f=json", "quiet", "q"]),
    ("pause", &[]),
    ("ps", &["format=json", "f=json"]),
    (
        "restore",
        &[
            "console-socket=x", "image-path=x", "work-path=x", "tcp-established", "ext-unix-sk", "shell-job", "file-locks",
            "manage-cgroups-mode=soft", "bundle=x", "b=x", "detach", "d", "pid-file=x", "no-subreaper", "no-pivot",
            "empty-ns=network", "auto-dedup", "lazy-pages", "lsm-profile=apparmor:x", "lsm-mount-context=x",
        ],
    ),
    ("resume", &[]),
    (
        "run",
        &[
            "bundle=x", "b=x", "console-socket=x", "pidfd-socket=x", "detach", "d", "keep", "pid-file=x", "no-subreaper",
            "no-pivot", "no-new-keyring", "preserve-fds=1",
        ],
    ),
    ("spec", &["bundle=x", "b=x", "rootless"]),
    ("start", &[]),
    ("state", &[]),
    (
        "update",
        &[
            "resources=x", "r=x", "blkio-weight=10", "cpu-period=1", "cpu-quota=1", "cpu-burst=1", "cpu-share=2",
            "cpu-rt-period=1", "cpu-rt-runtime=1", "cpuset-cpus=0", "cpuset-mems=0", "kernel-memory=1",
            "kernel-memory-tcp=1", "memory=1m", "cpu-idle=1", "memory-reservation=1m", "memory-swap=-1", "pids-limit=1",
            "l3-cache-schema=x", "mem-bw-schema=x",
        ],
    ),
];

const GLOBAL: &[&str] =
    &["debug", "log=x", "log-format=json", "root=x", "systemd-cgroup", "rootless=auto", "version", "v"];

pub(super) fn checks() -> Vec<Check> {
    let of_verb = |(verb, flags): &(&'static str, &'static [&'static str])| {
        let (verb, flags) = (*verb, *flags);
        Check::new(format!("flags::{verb}"), "runc: flags", move |lab: &mut Lab| taken(lab, verb, flags))
    };
    let global = Check::new("flags::global", "runc: flags", |lab: &mut Lab| taken(lab, "", GLOBAL));
    FLAGS.iter().map(of_verb).chain([global]).collect()
}

/// Asks for help behind each flag: what is taken is seen before it, and has no other effect.
fn taken(lab: &mut Lab, verb: &str, flags: &[&str]) -> Outcome {
    let empty = lab.directory("empty")?;
    for flag in flags {
        let (name, value) = flag.split_once('=').map_or((*flag, None), |(name, value)| (name, Some(value)));
        let dashes: &[&str] = if name.len() == 1 { &["-"] } else { &["--", "-"] };
        for dash in dashes {
            let word = format!("{dash}{name}");
            let spellings = match value {
                Some(value) => vec![vec![word.clone(), value.to_string()], vec![format!("{word}={value}")]],
                None => vec![vec![word.clone()], vec![format!("{word}=true")], vec![format!("{word}=false")]],
            };
            for mut words in spellings {
                let shown = words.join(" ");
                words.push("--help".to_string());
                if !verb.is_empty() {
                    words.insert(0, verb.to_string());
                }
                let out = lab.call(&words).cwd(&empty).go()?.ok(&shown)?;
                ensure!(!out.stdout.contains("Incorrect Usage"), "{verb} {shown}: {}", out.stdout);
            }
        }
    }
    same!(std::fs::read_dir(&empty)?.count(), 0, "files made while asking for help");
    Ok(())
}
