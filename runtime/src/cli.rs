//! The command line: from the words of an invocation to one arm per verb.
//!
//! [`verbs`] defines runc's commands and flags, clap checks and converts the values, [`crate::argv`] brings Go's flag
//! syntax into clap's, and [`help`] writes what can be known from the same definitions.

mod checkpoint;
#[cfg(test)]
mod completion;
mod duration;
mod help;
mod update;
mod verbs;

use crate::argv::{self, Flags, Words};
use crate::cgroup::Driver;
use crate::error::{Error, Kind, On, Result, invalid};
use crate::ops::exec::Outcome;
use crate::ops::{self, CreateOptions, EventsOptions, ExecOptions, Global, ProcessJson, RunOptions};
use crate::{console, log};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Command};
use orlop_sys::{fds, file, process, signal};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use verbs::{Verb, base, command, find, global_flags};

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

/// Whether these arguments make processes that enter a container, so that the executable must be sealed first. Looks for
/// the verb's word alone: a flag's value of the same text costs a needless sealing, nothing more.
pub fn enters_container(argv: &[OsString]) -> bool {
    argv.iter().skip(1).any(|word| ["create", "run", "exec", "mounts", "restore"].iter().any(|verb| word == verb))
}

/// Does what the arguments say.
pub fn run(argv: &[OsString]) -> Reply {
    let program = program(argv);
    let (global, rest) = match globals(argv) {
        Ok(both) => both,
        Err(usage) => return wrong_usage(format!(": {usage}"), help::overview(program), usage),
    };
    let Some((verb, words)) = rest.split_first().filter(|_| !on(&global, "help")) else {
        return if on(&global, "version") {
            Reply::text(help::version(program))
        } else {
            Reply::text(help::overview(program))
        };
    };
    if on(&global, "version") {
        return Reply::text(help::version(program));
    }
    if let Err(e) = log_options(&global).and_then(|options| log::init(&options)) {
        return Reply::failed(e.to_string());
    }
    match (verb.to_str(), words.first()) {
        (Some("help" | "h"), None) => Reply::text(help::overview(program)),
        (Some("help" | "h"), Some(topic)) => match find(topic) {
            Some(verb) => Reply::text(help::of_verb(program, verb, &command(verb))),
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
    let help = || help::of_verb(program, verb, &base(verb.name).args((verb.flags)()));
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
    // Before any process is made; these make none.
    if !matches!(verb, "features" | "kill" | "list" | "pause" | "resume" | "spec" | "state" | "update") {
        signal::unignore().on("read", "\"/proc/self/status\"")?;
    }
    // What these open is few, and they end soon or wait for a process first.
    if matches!(verb, "create" | "delete" | "exec" | "run" | "start") {
        fds::leave_open(process::rlimit(process::RLIMIT_NOFILE).on("prlimit", "RLIMIT_NOFILE")?.0);
    }
    let mut args = args.into_iter();
    // The verbs without an id do not look at it.
    let id = args.next().unwrap_or_default();
    if id.is_empty() && !matches!(verb, "features" | "list" | "spec") {
        return Err(Error::new(Kind::Invalid, "container id cannot be empty"));
    }
    match verb {
        "create" => ops::create::create(global, &create_options(flags, id)?).map(|_| Reply::default()),
        "run" => ops::run::run(global, &run_options(flags, id)?).map(Reply::status),
        "exec" => ops::exec::exec(global, &exec_options(flags, id, args.collect())?).map(|outcome| match outcome {
            Outcome::Detached(_) => Reply::default(),
            Outcome::Ended(status) => Reply::status(status),
        }),
        "events" => {
            let options = EventsOptions {
                id,
                stats: on(flags, "stats"),
                interval: flags.get_one("interval").copied().unwrap_or_default(),
            };
            ops::events::events(global, &options, &mut std::io::stdout().lock()).map(done)
        }
        "features" => ops::features::features().map(Reply::text),
        "start" => ops::start::start(global, &id).map(done),
        "state" => ops::state::state(global, &id).map(Reply::text),
        "kill" => {
            let signal = args.next().unwrap_or_else(|| "SIGTERM".to_string());
            match on(flags, "regex") {
                true => ops::kill::kill_matching(global, &id, &signal).map(done),
                false => ops::kill::kill(global, &id, &signal, on(flags, "all")).map(done),
            }
        }
        "delete" if on(flags, "regex") => ops::delete::delete_matching(global, &id, on(flags, "force")).map(done),
        "delete" => ops::delete::delete(global, &id, on(flags, "force")).map(done),
        "mounts" => {
            let (action, id) = (id, args.next().unwrap_or_default());
            let file = std::path::absolute(args.next().unwrap_or_default()).on("getcwd", "")?;
            ops::mounts::mounts(global, &action, &id, &file).map(done)
        }
        "pause" => ops::pause::pause(global, &id).map(done),
        "resume" => ops::resume::resume(global, &id).map(done),
        "list" => ops::list::list(global, &word(flags, "format"), on(flags, "quiet")).map(Reply::text),
        "ps" => ops::ps::ps(global, &id, &word(flags, "format"), &args.collect::<Vec<_>>()).map(Reply::text),
        "update" => ops::update::update(global, &update::options(flags, id)?).map(done),
        "checkpoint" => ops::checkpoint::checkpoint(global, &checkpoint::options(flags, id)?).map(done),
        "restore" => ops::restore::restore(global, &checkpoint::restore_options(flags, id)?).map(Reply::status),
        "spec" => {
            let file = flags.get_one::<OsString>("config").filter(|name| !name.is_empty()).map(Path::new);
            ops::spec::spec(&bundle(flags)?, file, on(flags, "rootless")).map(done)
        }
        other => Err(invalid(other.to_string(), "no such command")),
    }
}

fn create_options(flags: &ArgMatches, id: String) -> Result<CreateOptions> {
    Ok(CreateOptions {
        id,
        bundle: bundle(flags)?,
        config: file(flags, "config")?,
        console_socket: file(flags, "console-socket")?.map(console::Socket::Path),
        pidfd_socket: file(flags, "pidfd-socket")?.map(console::Socket::Path),
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
        process: file(flags, "process")?.map(process_json).transpose()?,
        cwd: string(flags, "cwd"),
        env: strings_of(flags, "env"),
        tty: on(flags, "tty"),
        user: string(flags, "user"),
        additional_gids: flags.get_many("additional-gids").unwrap_or_default().copied().collect(),
        detach: on(flags, "detach"),
        console_socket: file(flags, "console-socket")?.map(console::Socket::Path),
        pidfd_socket: file(flags, "pidfd-socket")?.map(console::Socket::Path),
        pid_file: file(flags, "pid-file")?,
        process_label: string(flags, "process-label"),
        apparmor: string(flags, "apparmor"),
        no_new_privs: flags.get_one("no-new-privs").copied(),
        cap: strings_of(flags, "cap"),
        preserve_fds: number(flags, "preserve-fds"),
        cgroup: strings_of(flags, "cgroup"),
        ignore_paused: on(flags, "ignore-paused"),
    })
}

fn process_json(name: PathBuf) -> Result<ProcessJson> {
    let text = std::fs::read(&name).on("read", name.display()).map_err(|e| e.at("--process"))?;
    Ok(ProcessJson { name, text })
}

fn global_options(flags: &ArgMatches) -> Result<Global> {
    Ok(Global {
        root: root(flags)?,
        cgroups: driver(flags)?,
        rootless: rootless(&word(flags, "rootless"))?,
        debug: on(flags, "debug"),
    })
}

/// crun's word wins over runc's switch.
fn driver(flags: &ArgMatches) -> Result<Driver> {
    match word(flags, "cgroup-manager").as_str() {
        "" if on(flags, "systemd-cgroup") => Ok(Driver::Systemd),
        "" | "cgroupfs" => Ok(Driver::Cgroupfs),
        "systemd" => Ok(Driver::Systemd),
        "disabled" => Ok(Driver::Disabled),
        other => Err(invalid("--cgroup-manager", format!("{other:?} is not one of cgroupfs, systemd and disabled"))),
    }
}

fn log_options(flags: &ArgMatches) -> Result<log::Options> {
    let level = match string(flags, "log-level") {
        _ if on(flags, "debug") => Some(::log::LevelFilter::Debug),
        Some(name) => Some(log::level(&name)?),
        None => None,
    };
    let sink = log::Sink::parse(flags.get_one::<OsString>("log").map_or(OsStr::new(""), OsString::as_os_str))?;
    Ok(log::Options { sink, json: log::format(&word(flags, "log-format"))?, level })
}

/// An empty or relative `--root` can come to be `/`, where a `delete` would be a disaster.
fn root(flags: &ArgMatches) -> Result<PathBuf> {
    let Some(given) = flags.get_one::<OsString>("root") else { return default_root() };
    let given = if given.is_empty() { OsStr::new(".") } else { given };
    let root = cleaned(&std::path::absolute(given).on("getcwd", "")?);
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
    file(flags, "bundle")?.map_or_else(|| std::env::current_dir().on("getcwd", ""), Ok)
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

/// Lets clap check and convert the values; an error begins as those of Go's package do, and says what would be right.
fn values(command: Command, flags: Vec<OsString>) -> std::result::Result<ArgMatches, String> {
    command.try_get_matches_from(flags).map_err(|e| {
        let context = |kind| match e.get(kind) {
            Some(ContextValue::String(text)) => text.as_str(),
            _ => "",
        };
        // clap names the flag with a sample of its value: "--preserve-fds <preserve-fds>".
        let flag = context(ContextKind::InvalidArg).split([' ', '[', '=']).next().unwrap_or("");
        let why = std::error::Error::source(&e).map(|why| format!(": {why}")).unwrap_or_default();
        format!("invalid value \"{}\" for flag {flag}: parse error{why}", context(ContextKind::InvalidValue))
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
