//! The command line: Go's flag syntax, which every containerd since 1.3 uses.

use std::ffi::OsString;
use std::path::PathBuf;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a daemon for a container, or name the one that has its group.
    Start,
    /// Clean up after a container whose daemon is gone.
    Delete,
    /// Print a `RuntimeInfo` message.
    Info,
    /// Print the version.
    Version,
}

/// The arguments of one invocation.
#[derive(Debug)]
pub struct Args {
    /// What to do.
    pub action: Action,
    /// containerd's namespace.
    pub namespace: String,
    /// The id of the container.
    pub id: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// The bundle, where it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// Debug messages are wanted.
    pub debug: bool,
}

/// Flags with a value that are part of the interface, but of no use to us: events go to TTRPC_ADDRESS, and the socket is ours to choose.
const UNUSED: &[&str] = &["publish-binary", "socket", "debug-socket"];

impl Args {
    /// Reads the arguments; the first one is the program's name.
    pub fn parse(argv: &[OsString]) -> Result<Args, String> {
        let mut args = Args {
            action: Action::Version,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            debug: false,
        };
        let mut action = None;
        let mut words = argv.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                action = Some(match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(format!("{other:?}: no such action; start and delete are there")),
                });
                continue;
            };
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (flag, None),
            };
            let on = given.as_deref().is_none_or(|v| matches!(v, "true" | "1" | "t"));
            match name {
                "debug" => args.debug = on,
                "v" | "version" => action = on.then_some(Action::Version).or(action),
                "info" => action = on.then_some(Action::Info).or(action),
                _ => {
                    let value =
                        given.or_else(|| words.next()).ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                    match name {
                        "namespace" => args.namespace = value,
                        "id" => args.id = value,
                        "address" => args.address = value,
                        "bundle" => args.bundle = Some(PathBuf::from(value)).filter(|p| !p.as_os_str().is_empty()),
                        _ if UNUSED.contains(&name) => {}
                        _ => return Err(format!("flag provided but not defined: -{name}")),
                    }
                }
            }
        }
        args.action = action.ok_or("an action is missing: start or delete (containerd calls this program)")?;
        if matches!(args.action, Action::Start | Action::Delete) {
            if args.namespace.is_empty() {
                return Err("shim namespace cannot be empty".to_string());
            }
            orlop::state::check_id(&args.id).map_err(|e| e.to_string())?;
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, String> {
        Args::parse(&words.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_containerd_calls() {
        let args =
            parse("shim -namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id a -debug start").unwrap();
        assert_eq!((args.action, args.namespace.as_str(), args.id.as_str()), (Action::Start, "k8s.io", "a"));
        assert!(args.debug);
        let args = parse("shim --namespace=n -id a -bundle /b delete").unwrap();
        assert_eq!((args.action, args.bundle), (Action::Delete, Some(PathBuf::from("/b"))));
        assert_eq!(parse("shim -v").unwrap().action, Action::Version);
        assert_eq!(parse("shim -info").unwrap().action, Action::Info);
    }

    #[test]
    fn what_it_does_not_call() {
        for (words, says) in [
            ("shim", "an action is missing"),
            ("shim -id a start", "namespace"),
            ("shim -namespace n -id a/b start", "invalid container ID"),
            ("shim -frob x start", "-frob"),
            ("shim -id", "needs an argument"),
            ("shim stop", "\"stop\""),
        ] {
            let e = parse(words).unwrap_err();
            assert!(e.contains(says), "{words}: {e}");
        }
    }
}
