//! The texts of help and version, laid out as runc lays them out, from the definitions of [`super::verbs`].

use super::verbs::{VERBS, Verb, base, global_flags};
use crate::argv;
use clap::{Arg, Command};
use std::fmt::Write;

/// Callers look for a line with "version" and one that begins with "commit:".
pub(super) fn version(program: &str) -> String {
    let commit = option_env!("ORLOP_COMMIT").unwrap_or("unknown");
    let (version, spec) = (env!("CARGO_PKG_VERSION"), crate::OCI_VERSION);
    format!("{program} version {version}\ncommit: {commit}\nspec: {spec}\n")
}

/// What the program can do.
pub(super) fn overview(program: &str) -> String {
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

/// What one verb can do; `command` has its flags.
pub(super) fn of_verb(program: &str, verb: &Verb, command: &Command) -> String {
    let Verb { name, about, usage, details, .. } = verb;
    let mut text = format!("NAME:\n   {program} {name} - {about}\n\nUSAGE:\n");
    for usage in usage.split('\n') {
        let _ = writeln!(text, "{}", format!("   {program} {name} [command options] {usage}").trim_end());
    }
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
    let (help, others): (Vec<_>, Vec<_>) =
        command.get_arguments().filter(|arg| !arg.is_hide_set()).partition(|arg| arg.get_long() == Some("help"));
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
