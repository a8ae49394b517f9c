//! The one error type: what failed, on what, why, and where in config.json it came from.
//!
//! An error is made in two ways only: [`invalid`] for a value that cannot be used, and [`On::on`] for a call that
//! failed; [`Error::at`] then adds the configuration field. [`Error::new`] is for the sentences that callers match on.

use orlop_sys::Errno;
use std::borrow::Cow;
use std::fmt;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What class of failure this is; the shim maps it to a ttrpc code, the command line to an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A flag, a field of config.json or an argument has a value that cannot be used.
    Invalid,
    /// No such container.
    NotFound,
    /// The container exists already.
    Exists,
    /// The container is in a state in which this operation is not allowed.
    State,
    /// Another command is at work on the container, and goes on for longer than one waits.
    Busy,
    /// A system call failed.
    System,
    /// The process of the container could not be executed.
    Exec,
    /// A hook failed or took too long.
    Hook,
    /// The other side of the init protocol ended early.
    Init,
}

/// An error; see the module's text for how to make one.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    field: Option<String>,
    what: Cow<'static, str>,
    object: Option<String>,
    errno: Option<Errno>,
    hint: Option<Cow<'static, str>>,
    also: Vec<Error>,
}

/// An error about a value: `field: why`. The field is a JSON path of config.json, a flag or an argument's name.
pub fn invalid(field: impl Into<String>, why: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::Invalid, why).at(field)
}

impl Error {
    /// An error that is a sentence of its own, such as one of the texts that callers match on.
    pub fn new(kind: Kind, what: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Inner {
            kind,
            field: None,
            what: what.into(),
            object: None,
            errno: None,
            hint: None,
            also: Vec::new(),
        }))
    }

    /// Adds the configuration field (JSON path) or flag that the failing step came from; the innermost one stays.
    pub fn at(mut self, field: impl Into<String>) -> Error {
        self.0.field.get_or_insert_with(|| field.into());
        self
    }

    /// Puts `prefix` before the field: a check of `options[1]` becomes one of `mounts[3].options[1]`.
    pub fn within(mut self, prefix: &str) -> Error {
        self.0.field = Some(match self.0.field.take() {
            Some(f) if f.starts_with('[') => format!("{prefix}{f}"),
            Some(f) => format!("{prefix}.{f}"),
            None => prefix.to_string(),
        });
        self
    }

    /// Says what the user can do about it. A hint never contains a phrase that callers match on.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps a second failure, of the cleaning up after the first.
    pub fn also(mut self, other: Error) -> Error {
        self.0.also.push(other);
        self
    }

    /// Changes the class, for a call whose failure means more than itself.
    pub fn kind_of(mut self, kind: Kind) -> Error {
        self.0.kind = kind;
        self
    }

    /// The class of this error.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The errno of the failed call, when there was one.
    pub fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    /// The configuration field or flag at fault, when it is known.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.0;
        if let Some(field) = &e.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&e.what)?;
        if let Some(object) = &e.object {
            write!(f, " {object}")?;
        }
        if let Some(errno) = e.errno {
            write!(f, ": {} ({})", errno_name(errno), errno.desc())?;
        }
        if let Some(hint) = &e.hint {
            write!(f, "; hint: {hint}")?;
        }
        for other in &e.also {
            write!(f, "; also: {other}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// nix prints an errno by its `Debug` name (`EINVAL`).
fn errno_name(errno: Errno) -> impl fmt::Display {
    struct Name(Errno);
    impl fmt::Display for Name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:?}", self.0)
        }
    }
    Name(errno)
}

/// Turns a bare errno into an [`Error`] that says which call failed on which object.
pub trait On<T> {
    /// What the value becomes: an [`Error`], or a [`Result`] of one.
    type Out;
    /// `call` in the words of strace ("mount tmpfs on"), `object` the path, pid or name that it was for.
    fn on(self, call: impl Into<Cow<'static, str>>, object: impl fmt::Display) -> Self::Out;
}

impl On<()> for Errno {
    type Out = Error;
    fn on(self, call: impl Into<Cow<'static, str>>, object: impl fmt::Display) -> Error {
        let mut e = Error::new(Kind::System, call);
        let object = object.to_string();
        e.0.object = (!object.is_empty()).then_some(object);
        e.0.errno = Some(self);
        e
    }
}

impl<T> On<T> for std::result::Result<T, Errno> {
    type Out = Result<T>;
    fn on(self, call: impl Into<Cow<'static, str>>, object: impl fmt::Display) -> Result<T> {
        self.map_err(|errno| errno.on(call, object))
    }
}

impl<T> On<T> for std::io::Result<T> {
    type Out = Result<T>;
    fn on(self, call: impl Into<Cow<'static, str>>, object: impl fmt::Display) -> Result<T> {
        self.map_err(|io| Errno::from_raw(io.raw_os_error().unwrap_or(nix_eio())).on(call, object))
    }
}

/// An `io::Error` without an errno comes from std's own checks (a NUL in a path, an early end of file).
fn nix_eio() -> i32 {
    Errno::EIO as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_field_call_object_errno_hint() {
        let e = Errno::EINVAL
            .on("mount tmpfs on", "\"/dev/shm\"")
            .at("mounts[3].options[1]")
            .hint("tmpfs has no option \"sise\"");
        assert_eq!(
            e.to_string(),
            "mounts[3].options[1]: mount tmpfs on \"/dev/shm\": EINVAL (Invalid argument); hint: tmpfs has no option \"sise\""
        );
    }

    #[test]
    fn the_innermost_field_stays_and_prefixes_join() {
        assert_eq!(invalid("options[1]", "x").within("mounts[3]").to_string(), "mounts[3].options[1]: x");
        assert_eq!(invalid("[1]", "x").within("mounts").to_string(), "mounts[1]: x");
        assert_eq!(invalid("a", "x").at("b").to_string(), "a: x");
    }
}
