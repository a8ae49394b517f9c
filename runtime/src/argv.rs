//! The flag syntax of Go's `flag` package, which runc has and its callers use, brought into the one form that clap reads
//! without doubt.
//!
//! `-name`, `--name`, `-name=value`, `--name value` are all the same flag; a switch takes a value only behind `=`; the next
//! word is the value even when it begins with a dash; flags may follow the arguments; `--` ends them.

use clap::{Arg, Command};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where the flags of a command may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flags {
    /// Anywhere among the arguments.
    Anywhere,
    /// Before the first argument: what follows belongs to another command.
    First,
}

/// The words of one command, sorted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Words {
    /// Each flag as `--name=value`.
    pub(crate) flags: Vec<OsString>,
    /// Everything that is no flag.
    pub(crate) args: Vec<OsString>,
}

/// Sorts `words` by the flags that `command` defines; an error is a sentence in the words of Go's package, which podman
/// looks for.
pub(crate) fn sort(command: &Command, words: &[OsString], flags: Flags) -> Result<Words, String> {
    let mut sorted = Words::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(flag) = flag_text(word) else {
            sorted.args.push(word.clone());
            match flags {
                Flags::Anywhere => continue,
                Flags::First => break,
            }
        };
        let (name, value) = split(flag);
        if name.is_empty() || name.starts_with(b"-") {
            return Err(format!("bad flag syntax: {}", word.to_string_lossy()));
        }
        let shown = shown(word);
        let arg = find(command, name).ok_or_else(|| format!("flag provided but not defined: {shown}"))?;
        let value = match value {
            Some(value) => value,
            None if is_switch(arg) => b"true",
            None => words.next().ok_or_else(|| format!("flag needs an argument: {shown}"))?.as_bytes(),
        };
        sorted.flags.push(canonical(arg, value));
    }
    sorted.args.extend(words.cloned());
    Ok(sorted)
}

/// A flag as it was typed, without its value.
fn shown(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    text.split_once('=').map_or(&*text, |(flag, _)| flag).to_string()
}

/// Whether a flag may stand without a value.
pub(crate) fn is_switch(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|n| n.min_values() == 0)
}

/// The word without its one or two dashes; `None` for an argument, as which `-` alone counts.
fn flag_text(word: &OsStr) -> Option<&[u8]> {
    let text = word.as_bytes().strip_prefix(b"-")?;
    if text.is_empty() {
        return None;
    }
    Some(text.strip_prefix(b"-").unwrap_or(text))
}

fn split(flag: &[u8]) -> (&[u8], Option<&[u8]>) {
    match flag.iter().position(|&b| b == b'=') {
        Some(at) => {
            let (name, value) = flag.split_at(at);
            (name, value.strip_prefix(b"="))
        }
        None => (flag, None),
    }
}

fn find<'a>(command: &'a Command, name: &[u8]) -> Option<&'a Arg> {
    let name = std::str::from_utf8(name).ok()?;
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name) || arg.get_short().is_some_and(|short| name.chars().eq([short])))
}

fn canonical(arg: &Arg, value: &[u8]) -> OsString {
    let mut word = format!("--{}=", arg.get_long().unwrap_or_default()).into_bytes();
    word.extend_from_slice(value);
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("t").args([
            Arg::new("bundle").long("bundle").short('b').num_args(1),
            Arg::new("quiet").long("quiet").short('q').num_args(0..=1).require_equals(true),
        ])
    }

    fn sorted(line: &str, flags: Flags) -> Result<(String, String), String> {
        let words: Vec<OsString> = line.split(' ').filter(|w| !w.is_empty()).map(OsString::from).collect();
        let text = |words: &[OsString]| words.join(OsStr::new(" ")).into_string().unwrap();
        sort(&command(), &words, flags).map(|w| (text(&w.flags), text(&w.args)))
    }

    #[test]
    fn every_spelling_is_one_flag() {
        for line in ["-b x id", "--b x id", "-bundle x id", "--bundle x id", "-b=x id", "-bundle=x id", "id --bundle=x"]
        {
            assert_eq!(sorted(line, Flags::Anywhere), Ok(("--bundle=x".into(), "id".into())), "{line}");
        }
        for line in ["-q id", "--quiet id", "id -quiet", "-q=true id"] {
            assert_eq!(sorted(line, Flags::Anywhere), Ok(("--quiet=true".into(), "id".into())), "{line}");
        }
        assert_eq!(sorted("-q=false id", Flags::Anywhere), Ok(("--quiet=false".into(), "id".into())));
        assert_eq!(sorted("-b= id", Flags::Anywhere), Ok(("--bundle=".into(), "id".into())));
        assert_eq!(sorted("-b=a=b", Flags::Anywhere), Ok(("--bundle=a=b".into(), "".into())));
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(sorted("--bundle -q id", Flags::Anywhere), Ok(("--bundle=-q".into(), "id".into())));
    }

    #[test]
    fn flags_of_another_command_are_its_own() {
        assert_eq!(sorted("-q id ls -b", Flags::First), Ok(("--quiet=true".into(), "id ls -b".into())));
        assert_eq!(sorted("-q id -- ls", Flags::First), Ok(("--quiet=true".into(), "id -- ls".into())));
        assert_eq!(sorted("-- id -q", Flags::First), Ok(("".into(), "id -q".into())));
        assert_eq!(sorted("id - -- -q", Flags::Anywhere), Ok(("".into(), "id - -q".into())));
    }

    #[test]
    fn refusals_are_gos() {
        for (line, error) in [
            ("--nosuch", "flag provided but not defined: --nosuch"),
            ("--nosuch=x", "flag provided but not defined: --nosuch"),
            ("-qb x", "flag provided but not defined: -qb"),
            ("id -9", "flag provided but not defined: -9"),
            ("id --bundle", "flag needs an argument: --bundle"),
            ("---b", "bad flag syntax: ---b"),
            ("--=x", "bad flag syntax: --=x"),
        ] {
            assert_eq!(sorted(line, Flags::Anywhere), Err(error.into()), "{line}");
        }
    }
}
