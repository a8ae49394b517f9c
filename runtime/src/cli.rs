//! The command line: runc's commands and flags as clap definitions, and one arm per verb.
//!
//! clap holds the definitions, checks and converts the values; [`crate::argv`] brings Go's flag syntax into clap's, and
//! the help is laid out here as runc lays it out, from the same definitions.

use crate::argv::{self, Flags, Words};
use crate::error::{Error, Kind, On, Result, invalid};
use crate::log;
use crate::ops::{self, CreateOptions, ExecOptions, Global, RunOptions};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// What an invocation comes to.
#[derive(Debug, Default, PartialEq)]
pub struct Reply {
    /// Text for stdout.
    pub stdout: String,
    /// Why it failed: the one error of the log.
    pub error: Option<String>,
    /// The exit status.
    pub status: u8,
}

impl Reply {
    /// A failure, with the usual status of 1.
    pub fn failed(error: impl Into<String>) -> Reply {
        Reply { stdout: String::new(), error: Some(error.into()), status: 1 }
    }

    fn text(stdout: String) -> Reply {
        Reply { stdout, ..Reply::default() }
    }

    fn status(status: u8) -> Reply {
        Reply { status, ..Reply::default() }
    }
}

/// A verb: what clap needs to know, what its help says, and how many arguments it takes.
struct Verb {
    name: &'static str,
    about: &'static str,
    usage: &'static str,
    details: &'static str,
    flags: fn() -> Vec<Arg>,
    syntax: Flags,
    args: (usize, usize),
}

const ANY: usize = usize::MAX;
const ID: &str = "<container-id>";

const VERBS: &[Verb] = &[
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
            ]
        },
        syntax: Flags::Anywhere,
        args: (1, 1),
    },
    Verb {
        name: "exec",
        about: "run another process in a container",
        usage: "<container-id> <command> [arguments...]  || -p process.json <container-id>",
        details: "All that follows the id belongs to the command. The flags change the process of config.json; with\n\
                  --process, the file says everything about the process.",
        flags: exec_flags,
        syntax: Flags::First,
        args: (1, ANY),
    },
    Verb {
        name: "kill",
        about: "send a signal (default: SIGTERM) to the process of a container",
        usage: "<container-id> [signal]",
        details: "The signal is a number or a name, with or without SIG, in any case.",
        flags: || vec![switch("all", "a container that has stopped is no error").short('a')],
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
];

fn global_flags() -> Vec<Arg> {
    vec![
        switch("debug", "write debug messages to the log"),
        path("log", "a file to append the log to (default: stderr)"),
        text("log-format", "the log's format: text or json").default_value("text"),
        text("log-level", "the least level to log: error, warning or debug"),
        path("root", "the directory for the state of the containers, best on a tmpfs (default: /run/orlop)"),
        switch("systemd-cgroup", "let systemd make the cgroups; cgroupsPath is then slice:prefix:name"),
        text("rootless", "accept that cgroups cannot be managed: true, false or auto").default_value("auto"),
        switch("version", "print the version").short('v'),
    ]
}

fn create_flags() -> Vec<Arg> {
    vec![
        path("bundle", "the bundle directory (default: the current directory)").short('b'),
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
        switch("no-new-privs", "set no_new_privs"),
        list("cap", "a capability to add; may be repeated").short('c'),
        preserve_fds(),
        list("cgroup", "a sub-cgroup to run in, as [controller:]path; may be repeated"),
        switch("ignore-paused", "go ahead in a paused container"),
    ]
}

fn preserve_fds() -> Arg {
    text("preserve-fds", "how many fds from 3 on the process inherits, after those of $LISTEN_FDS")
        .value_parser(value_parser!(u32))
        .default_value("0")
}

fn format_flag() -> Arg {
    text("format", "table or json").short('f').default_value("table")
}

fn text(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).num_args(1).action(ArgAction::Set)
}

fn path(name: &'static str, help: &'static str) -> Arg {
    text(name, help).value_parser(value_parser!(OsString))
}

fn list(name: &'static str, help: &'static str) -> Arg {
    text(name, help).action(ArgAction::Append)
}

/// Takes a value behind `=`, so that `--detach=false` says what it says.
fn switch(name: &'static str, help: &'static str) -> Arg {
    text(name, help).num_args(0..=1).require_equals(true).value_parser(go_bool)
}

/// Whether these arguments make processes that enter a container, so that the executable must be sealed first. Looks for
/// the verb's word alone: a flag's value of the same text costs a needless sealing, nothing more.
pub fn enters_container(argv: &[OsString]) -> bool {
    argv.iter().skip(1).any(|word| ["create", "run", "exec", "restore"].iter().any(|verb| word == verb))
}

/// Does what the arguments say.
pub fn run(argv: &[OsString]) -> Reply {
    let program = program(argv);
    let (global, rest) = match globals(argv) {
        Ok(both) => both,
        Err(usage) => return wrong_usage(format!(": {usage}"), help(program), usage),
    };
    let Some((verb, words)) = rest.split_first().filter(|_| !on(&global, "help")) else {
        return if on(&global, "version") { Reply::text(version(program)) } else { Reply::text(help(program)) };
    };
    if on(&global, "version") {
        return Reply::text(version(program));
    }
    if let Err(e) = log_options(&global).and_then(|options| log::init(&options)) {
        return Reply::failed(e.to_string());
    }
    match (verb.to_str(), words.first()) {
        (Some("help" | "h"), None) => Reply::text(help(program)),
        (Some("help" | "h"), Some(topic)) => match find(topic) {
            Some(verb) => Reply::text(verb_help(program, verb, &command(verb))),
            None => no_topic(topic),
        },
        _ => match find(verb) {
            Some(verb) => run_verb(program, &global, verb, words),
            None => no_topic(verb),
        },
    }
}

fn globals(argv: &[OsString]) -> std::result::Result<(ArgMatches, Vec<OsString>), String> {
    let command = base("orlop").args(global_flags());
    let Words { flags, args } = argv::sort(&command, argv.get(1..).unwrap_or_default(), Flags::First)?;
    Ok((values(command, flags)?, args))
}

fn run_verb(program: &str, global: &ArgMatches, verb: &Verb, words: &[OsString]) -> Reply {
    let command = command(verb);
    let help = || verb_help(program, verb, &base(verb.name).args((verb.flags)()));
    let parsed = argv::sort(&command, words, verb.syntax).and_then(|w| Ok((values(command, w.flags)?, w.args)));
    let (flags, args) = match parsed {
        Ok(both) => both,
        Err(usage) => return wrong_usage(format!(": {usage}"), help(), usage),
    };
    if on(&flags, "help") {
        return Reply::text(help());
    }
    if let Some(usage) = wrong_count(verb, args.len()) {
        return wrong_usage(".".to_string(), help(), format!("{program}: {usage}"));
    }
    match strings(&args).and_then(|args| dispatch(&global_options(global)?, verb.name, &flags, args)) {
        Ok(reply) => reply,
        Err(e) => failure(program, verb.name, &e),
    }
}

/// Verbs that make processes say so, as the callers of runc expect; a process that could not be executed is status 255.
fn failure(program: &str, verb: &str, error: &Error) -> Reply {
    let error = match verb {
        "create" | "run" | "exec" => format!("{program} {verb} failed: {error}"),
        _ => error.to_string(),
    };
    Reply { status: if verb == "exec" { 255 } else { 1 }, ..Reply::failed(error) }
}

/// One arm per verb.
fn dispatch(global: &Global, verb: &str, flags: &ArgMatches, args: Vec<String>) -> Result<Reply> {
    let done = |()| Reply::default();
    let mut args = args.into_iter();
    // The verbs without an id do not look at it.
    let id = args.next().unwrap_or_default();
    if id.is_empty() && !matches!(verb, "list" | "spec") {
        return Err(Error::new(Kind::Invalid, "container id cannot be empty"));
    }
    match verb {
        "create" => ops::create::create(global, &create_options(flags, id)?).map(done),
        "run" => ops::run::run(global, &run_options(flags, id)?).map(Reply::status),
        "exec" => ops::exec::exec(global, &exec_options(flags, id, args.collect())?).map(Reply::status),
        "start" => ops::start::start(global, &id).map(done),
        "state" => ops::state::state(global, &id).map(Reply::text),
        "kill" => {
            let signal = args.next().unwrap_or_else(|| "SIGTERM".to_string());
            ops::kill::kill(global, &id, &signal, on(flags, "all")).map(done)
        }
        "delete" => ops::delete::delete(global, &id, on(flags, "force")).map(done),
        "pause" => ops::pause::pause(global, &id).map(done),
        "resume" => ops::resume::resume(global, &id).map(done),
        "list" => ops::list::list(global, &word(flags, "format"), on(flags, "quiet")).map(Reply::text),
        "ps" => ops::ps::ps(global, &id, &word(flags, "format"), &args.collect::<Vec<_>>()).map(Reply::text),
        "spec" => ops::spec::spec(&bundle(flags)?, on(flags, "rootless")).map(done),
        other => Err(invalid(other.to_string(), "no such command")),
    }
}

fn create_options(flags: &ArgMatches, id: String) -> Result<CreateOptions> {
    Ok(CreateOptions {
        id,
        bundle: bundle(flags)?,
        console_socket: file(flags, "console-socket")?,
        pidfd_socket: file(flags, "pidfd-socket")?,
        pid_file: file(flags, "pid-file")?,
        no_pivot: on(flags, "no-pivot"),
        no_new_keyring: on(flags, "no-new-keyring"),
        preserve_fds: number(flags, "preserve-fds"),
    })
}

fn run_options(flags: &ArgMatches, id: String) -> Result<RunOptions> {
    Ok(RunOptions {
        create: create_options(flags, id)?,
        detach: on(flags, "detach"),
        keep: on(flags, "keep"),
        no_subreaper: on(flags, "no-subreaper"),
    })
}

fn exec_options(flags: &ArgMatches, id: String, args: Vec<String>) -> Result<ExecOptions> {
    Ok(ExecOptions {
        id,
        args,
        process: file(flags, "process")?,
        cwd: string(flags, "cwd"),
        env: strings_of(flags, "env"),
        tty: on(flags, "tty"),
        user: string(flags, "user"),
        additional_gids: flags.get_many("additional-gids").unwrap_or_default().copied().collect(),
        detach: on(flags, "detach"),
        console_socket: file(flags, "console-socket")?,
        pidfd_socket: file(flags, "pidfd-socket")?,
        pid_file: file(flags, "pid-file")?,
        process_label: string(flags, "process-label"),
        apparmor: string(flags, "apparmor"),
        no_new_privs: on(flags, "no-new-privs"),
        cap: strings_of(flags, "cap"),
        preserve_fds: number(flags, "preserve-fds"),
        cgroup: strings_of(flags, "cgroup"),
        ignore_paused: on(flags, "ignore-paused"),
    })
}

fn global_options(flags: &ArgMatches) -> Result<Global> {
    Ok(Global {
        root: root(flags)?,
        systemd_cgroup: on(flags, "systemd-cgroup"),
        rootless: rootless(&word(flags, "rootless"))?,
        debug: on(flags, "debug"),
    })
}

fn log_options(flags: &ArgMatches) -> Result<log::Options> {
    let level = match string(flags, "log-level") {
        _ if on(flags, "debug") => Some(::log::LevelFilter::Debug),
        Some(name) => Some(log::level(&name)?),
        None => None,
    };
    Ok(log::Options { file: file(flags, "log")?, json: log::format(&word(flags, "log-format"))?, level })
}

/// An empty or relative `--root` can come to be `/`, where a `delete` would be a disaster.
fn root(flags: &ArgMatches) -> Result<PathBuf> {
    let Some(given) = flags.get_one::<OsString>("root") else { return default_root() };
    let here = std::env::current_dir().on("getcwd", "")?;
    let root = cleaned(&here.join(given));
    if root == Path::new("/") {
        return Err(Error::new(Kind::Invalid, "Option --root argument should not be set to /"));
    }
    Ok(root)
}

/// What lies in $XDG_RUNTIME_DIR without the sticky bit may be cleaned away by age (XDG Base Directory Specification).
fn default_root() -> Result<PathBuf> {
    let (root, in_runtime_dir) = ops::default_root();
    if in_runtime_dir {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.on("mkdir", root.display()).map_err(|e| e.hint("$XDG_RUNTIME_DIR must be writable, or give --root"))?;
        let sticky = std::fs::Permissions::from_mode(0o1700);
        std::fs::set_permissions(&root, sticky).on("chmod", root.display())?;
    }
    Ok(root)
}

/// An absolute path without `.` and `..`, as text: the root need not exist yet.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn rootless(value: &str) -> Result<Option<bool>> {
    if value.is_empty() || value.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    go_bool(value).map(Some).map_err(|_| invalid("--rootless", "must be true, false or auto"))
}

/// The spellings that Go's strconv.ParseBool takes.
fn go_bool(value: &str) -> std::result::Result<bool, &'static str> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("must be true or false"),
    }
}

/// The bundle directory, absolute: the verbs do not change their working directory.
fn bundle(flags: &ArgMatches) -> Result<PathBuf> {
    let here = std::env::current_dir().on("getcwd", "")?;
    Ok(file(flags, "bundle")?.map_or(here.clone(), |bundle| here.join(bundle)))
}

/// A path, absolute; empty is as good as not given.
fn file(flags: &ArgMatches, name: &str) -> Result<Option<PathBuf>> {
    let given = flags.get_one::<OsString>(name).filter(|path| !path.is_empty());
    given.map(|path| std::path::absolute(path).on("getcwd", "")).transpose()
}

fn on(flags: &ArgMatches, name: &str) -> bool {
    flags.get_one(name).copied().unwrap_or_default()
}

fn number(flags: &ArgMatches, name: &str) -> u32 {
    flags.get_one(name).copied().unwrap_or_default()
}

fn word(flags: &ArgMatches, name: &str) -> String {
    flags.get_one(name).cloned().unwrap_or_default()
}

/// Empty is as good as not given.
fn string(flags: &ArgMatches, name: &str) -> Option<String> {
    flags.get_one(name).cloned().filter(|value: &String| !value.is_empty())
}

fn strings_of(flags: &ArgMatches, name: &str) -> Vec<String> {
    flags.get_many(name).unwrap_or_default().cloned().collect()
}

fn strings(args: &[OsString]) -> Result<Vec<String>> {
    let text = |arg: &OsString| arg.to_str().map(String::from);
    args.iter().map(text).collect::<Option<_>>().ok_or_else(|| invalid("arguments", "must be UTF-8"))
}

/// `runc` when installed under that name, so that callers that check the name are content.
fn program(argv: &[OsString]) -> &'static str {
    match argv.first().and_then(|path| Path::new(path).file_name()) {
        Some(name) if name == "runc" => "runc",
        _ => "orlop",
    }
}

fn find(name: &OsStr) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| name == verb.name)
}

fn command(verb: &Verb) -> Command {
    base(verb.name).args((verb.flags)())
}

fn base(name: &'static str) -> Command {
    let plain = Command::new(name).disable_help_flag(true).disable_version_flag(true).no_binary_name(true);
    plain.args_override_self(true).arg(switch("help", "show this help").short('h'))
}

/// Lets clap check and convert the values; an error is a sentence in the words of Go's package.
fn values(command: Command, flags: Vec<OsString>) -> std::result::Result<ArgMatches, String> {
    command.try_get_matches_from(flags).map_err(|e| {
        let context = |kind| match e.get(kind) {
            Some(ContextValue::String(text)) => text.as_str(),
            _ => "",
        };
        // clap names the flag with a sample of its value: "--preserve-fds <preserve-fds>".
        let flag = context(ContextKind::InvalidArg).trim_start_matches('-').split([' ', '[', '=']).next().unwrap_or("");
        format!("invalid value \"{}\" for flag -{flag}: parse error", context(ContextKind::InvalidValue))
    })
}

fn wrong_count(verb: &Verb, count: usize) -> Option<String> {
    let (least, most) = verb.args;
    let (bound, limit) = match () {
        () if count >= least && count <= most => return None,
        () if least == most => ("exactly", least),
        () if count < least => ("a minimum of", least),
        () => ("a maximum of", most),
    };
    Some(format!("\"{}\" requires {bound} {limit} argument(s)", verb.name))
}

fn wrong_usage(why: String, help: String, error: String) -> Reply {
    Reply { stdout: format!("Incorrect Usage{why}\n\n{help}"), ..Reply::failed(error) }
}

fn no_topic(name: &OsStr) -> Reply {
    Reply { status: 3, ..Reply::failed(format!("No help topic for '{}'", name.to_string_lossy())) }
}

/// Callers look for a line with "version" and one that begins with "commit:".
fn version(program: &str) -> String {
    let commit = option_env!("ORLOP_COMMIT").unwrap_or("unknown");
    format!("{program} version {}\ncommit: {commit}\nspec: 1.3.0\n", env!("CARGO_PKG_VERSION"))
}

fn help(program: &str) -> String {
    let verbs: Vec<(String, String)> = VERBS
        .iter()
        .map(|v| (v.name, v.about))
        .chain([("help, h", "show this help, or that of a command")])
        .map(|(name, about)| (name.to_string(), about.to_string()))
        .collect();
    format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\n\
         USAGE:\n   {program} [global options] command [command options] [arguments...]\n\n\
         VERSION:\n   {}\n\n\
         COMMANDS:\n{}\n\
         GLOBAL OPTIONS:\n{}",
        env!("CARGO_PKG_VERSION"),
        columns(&verbs),
        columns(&options(&base("orlop").args(global_flags()))),
    )
}

fn verb_help(program: &str, verb: &Verb, command: &Command) -> String {
    let Verb { name, about, usage, details, .. } = verb;
    let mut text =
        format!("NAME:\n   {program} {name} - {about}\n\nUSAGE:\n   {program} {name} [command options] {usage}\n");
    if !details.is_empty() {
        let details = details.replace('\n', "\n   ");
        // Writing to a String cannot fail.
        let _ = write!(text, "\nDESCRIPTION:\n   {details}\n");
    }
    let _ = write!(text, "\nOPTIONS:\n{}", columns(&options(command)));
    text
}

/// The flags of a command as (spelling, meaning), the help last.
fn options(command: &Command) -> Vec<(String, String)> {
    let (help, others): (Vec<_>, Vec<_>) = command.get_arguments().partition(|arg| arg.get_long() == Some("help"));
    others.into_iter().chain(help).map(option).collect()
}

fn option(arg: &Arg) -> (String, String) {
    let value = if argv::is_switch(arg) { "" } else { " value" };
    let mut spelling = format!("--{}{value}", arg.get_long().unwrap_or_default());
    if let Some(short) = arg.get_short() {
        let _ = write!(spelling, ", -{short}{value}");
    }
    let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if let [default] = arg.get_default_values() {
        let _ = write!(meaning, " (default: {})", default.to_string_lossy());
    }
    (spelling, meaning)
}

fn columns(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or_default();
    rows.iter().map(|(left, right)| format!("   {left:width$}  {right}\n")).collect()
}
