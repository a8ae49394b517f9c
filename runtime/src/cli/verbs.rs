//! What the verbs are: a table of runc's commands, and their flags as clap definitions.

use super::duration::duration;
use super::{checkpoint, go_bool, update};
use crate::argv::Flags;
use clap::{Arg, ArgAction, Command, value_parser};
use std::ffi::{OsStr, OsString};

/// A verb: what clap needs to know, what its help says, and how many arguments it takes.
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) usage: &'static str,
    pub(super) details: &'static str,
    pub(super) flags: fn() -> Vec<Arg>,
    pub(super) syntax: Flags,
    pub(super) args: (usize, usize),
}

const ANY: usize = usize::MAX;
const ID: &str = "<container-id>";

/// Every verb, in the order of the help.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "checkpoint",
        about: "write the processes of a running container to files, and delete it",
        usage: ID,
        details: checkpoint::DETAILS,
        flags: checkpoint::flags,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "create",
        about: "create a container",
        usage: ID,
        details: "Makes the container that the bundle's config.json describes and lets its process wait for \"start\".\n\
                  The id is yours to choose; it must be unique among the containers of the same --root.",
        flags: create_flags,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "delete",
        about: "delete a container that has stopped, and all that is kept for it",
        usage: ID,
        details: "",
        flags: || {
            vec![
                switch("force", "kill the container first if it is running; one that does not exist is no error")
                    .short('f'),
                regex(),
            ]
        },
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "events",
        about: "print what a container uses, and when it runs out of memory, until it ends",
        usage: ID,
        details: "One JSON object a line: of type \"stats\" at every interval, of type \"oom\" when it happens.",
        flags: || {
            vec![
                text("interval", "the time between two statistics, such as 500ms or 1m30s")
                    .value_parser(duration)
                    .default_value("5s"),
                switch("stats", "print the statistics once and end"),
            ]
        },
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "exec",
        about: "run another process in a container",
        usage: "<container-id> <command> [arguments...]\n--process process.json <container-id>",
        details: "All that follows the id belongs to the command. The flags change the process of config.json; with\n\
                  --process, the file says everything about the process.",
        flags: exec_flags,
        syntax: Flags::First,
        args: (1, ANY),
    },
    Verb {
        name: "features",
        about: "print what this build can do, as JSON (features.md of the runtime specification)",
        usage: "",
        details: "",
        flags: Vec::new,
        syntax: Flags::Anywhere,
        args: (0, 0),
    },
    Verb {
        name: "kill",
        about: "send a signal (default: SIGTERM) to the process of a container",
        usage: "<container-id> [signal]",
        details: "The signal is a number or a name, with or without SIG, in any case; RTMIN+n and RTMAX-n are names too.",
        flags: || vec![switch("all", "a container that has stopped is no error").short('a'), regex()],
        syntax: Flags::Anywhere,
        args: (1, 2),
    },
    Verb {
        name: "list",
        about: "list the containers below --root",
        usage: "",
        details: "",
        flags: || vec![format_flag(), switch("quiet", "print the ids alone").short('q')],
        syntax: Flags::Anywhere,
        args: (0, 0),
    },
    Verb {
        name: "mounts",
        about: "add mounts to a container that is there, or remove them",
        usage: "add|remove <container-id> <file>",
        details: "The file is a JSON array, as \"mounts\" of config.json is one. \"add\" makes each of them in the container, with all the\n\
                  options that config.json may have; a relative source is one of the bundle's. \"remove\" looks at the destinations\n\
                  alone. When one of the list fails, the others are taken back, or left as they were.",
        flags: Vec::new,
        syntax: Flags::Anywhere,
        args: (3, 3),
    },
    Verb {
        name: "pause",
        about: "suspend all processes of a container",
        usage: ID,
        details: "",
        flags: Vec::new,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "ps",
        about: "show the processes of a container",
        usage: "<container-id> [ps options]",
        details: "The table is that of the host's ps(1), by default of \"ps -ef\".",
        flags: || vec![format_flag()],
        syntax: Flags::First,
        args: (1, ANY),
    },
    Verb {
        name: "restore",
        about: "make a container from the files of a checkpoint",
        usage: ID,
        details: checkpoint::RESTORE_DETAILS,
        flags: checkpoint::restore_flags,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "resume",
        about: "let the processes of a paused container go on",
        usage: ID,
        details: "",
        flags: Vec::new,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "run",
        about: "create a container, start it, wait for its end and delete it",
        usage: ID,
        details: "Ends with the status of the container's process, or 128 + n when signal n killed it.",
        flags: run_flags,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "spec",
        about: "write a config.json to begin with",
        usage: "",
        details: "The process of the new configuration is \"sh\" in the directory \"rootfs\" of the bundle.",
        flags: || {
            vec![
                path("bundle", "the bundle directory (default: the current directory)").short('b'),
                path("config", "the file to write in the bundle (default: config.json)").short('f'),
                switch("rootless", "for a user without privileges: with a user namespace, without limits"),
            ]
        },
        syntax: Flags::Anywhere,
        args: (0, 0),
    },
    Verb {
        name: "start",
        about: "start the process of a container that was created",
        usage: ID,
        details: "",
        flags: Vec::new,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "state",
        about: "print the state of a container as JSON",
        usage: ID,
        details: "",
        flags: Vec::new,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "update",
        about: "change the limits of a container",
        usage: ID,
        details: update::DETAILS,
        flags: update::flags,
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
];

/// The flags before the verb.
pub(super) fn global_flags() -> Vec<Arg> {
    vec![
        switch("debug", "write debug messages to the log"),
        path("log", "where the log goes: a file, file:PATH, journald:ID or syslog:ID (default: stderr)"),
        text("log-format", "the log's format: text or json").default_value("text"),
        text("log-level", "the least level to log: error, warning or debug"),
        path("root", "the directory for the state of the containers, best on a tmpfs (default: /run/orlop)"),
        switch("systemd-cgroup", "let systemd make the cgroups; linux.cgroupsPath is then slice:prefix:name"),
        text("cgroup-manager", "who makes the cgroups: cgroupfs, systemd, or disabled for none"),
        text("rootless", "accept that cgroups cannot be managed: true, false or auto").default_value("auto"),
        switch("version", "print the version").short('v'),
    ]
}

fn create_flags() -> Vec<Arg> {
    vec![
        path("bundle", "the bundle directory (default: the current directory)").short('b'),
        path("config", "the configuration (default: config.json in the bundle)").short('f'),
        path("console-socket", "an AF_UNIX socket that receives the master of the container's terminal"),
        path("pidfd-socket", "an AF_UNIX socket that receives a pidfd of the container's process"),
        path("pid-file", "a file to write the process id to"),
        switch("no-pivot", "do not use pivot_root, for a root file system on a ramdisk"),
        switch("no-new-keyring", "keep the session keyring of the caller"),
        preserve_fds(),
    ]
}

fn run_flags() -> Vec<Arg> {
    let mut flags = create_flags();
    flags.extend([
        switch("detach", "return when the process has started").short('d'),
        switch("keep", "do not delete the container at its end"),
        switch("no-subreaper", "leave orphans of the container to the host's init"),
    ]);
    flags
}

fn exec_flags() -> Vec<Arg> {
    vec![
        path("console-socket", "an AF_UNIX socket that receives the master of the process's terminal"),
        path("pidfd-socket", "an AF_UNIX socket that receives a pidfd of the process"),
        text("cwd", "the working directory in the container"),
        list("env", "NAME=value for the environment; may be repeated").short('e'),
        switch("tty", "give the process a terminal").short('t'),
        text("user", "the user, as uid[:gid]").short('u'),
        list("additional-gids", "a supplementary group; may be repeated").short('g').value_parser(value_parser!(u32)),
        path("process", "a file with the process as JSON").short('p'),
        switch("detach", "return when the process has started").short('d'),
        path("pid-file", "a file to write the process id to"),
        text("process-label", "the SELinux label of the process"),
        text("apparmor", "the AppArmor profile of the process"),
        switch("no-new-privs", "set no_new_privs; false: clear it"),
        list("cap", "a capability to add; may be repeated").short('c'),
        preserve_fds(),
        list("cgroup", "a sub-cgroup to run in, as [controller:]path; may be repeated"),
        switch("ignore-paused", "go ahead in a paused container"),
    ]
}

fn regex() -> Arg {
    switch("regex", "the id is an extended regular expression: every container that it matches").short('r')
}

fn preserve_fds() -> Arg {
    text("preserve-fds", "how many fds from 3 on the process inherits, after those of $LISTEN_FDS")
        .value_parser(value_parser!(u32))
        .default_value("0")
}

fn format_flag() -> Arg {
    text("format", "table or json").short('f').default_value("table")
}

/// A flag with a value.
pub(super) fn text(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).num_args(1).action(ArgAction::Set)
}

/// A flag whose value is a path, which need not be UTF-8.
pub(super) fn path(name: &'static str, help: &'static str) -> Arg {
    text(name, help).value_parser(value_parser!(OsString))
}

pub(super) fn list(name: &'static str, help: &'static str) -> Arg {
    text(name, help).action(ArgAction::Append)
}

/// Takes a value behind `=`, so that `--detach=false` says what it says.
pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    text(name, help).num_args(0..=1).require_equals(true).value_parser(go_bool)
}

/// The verb of this name.
pub(super) fn find(name: &OsStr) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| name == verb.name)
}

/// A verb as clap sees it.
pub(super) fn command(verb: &Verb) -> Command {
    base(verb.name).args((verb.flags)())
}

/// A command with nothing but `--help`.
pub(super) fn base(name: &'static str) -> Command {
    let plain = Command::new(name).disable_help_flag(true).disable_version_flag(true).no_binary_name(true);
    plain.args_override_self(true).arg(switch("help", "show this help").short('h'))
}
