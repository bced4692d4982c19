//! The one error type: what failed, on which thing, what to do about it.
//!
//! A [`Kind`] decides the exit code; a message names the thing; an optional hint says the way out; a [`Cause`]
//! says what code may act on; the source keeps what the system said. Functions either return an error or report it, never both.

use std::fmt;
use std::path::Path;

/// The result of everything in this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. Each kind has one documented exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// A script of the pack failed: exit code 1.
    Script,
    /// The command line can't be understood or can't be done as asked: exit code 2.
    Usage,
    /// An image, layer, layout, pack or a pack's output is not what it must be: exit code 65.
    BadInput,
    /// A registry or the network to it failed: exit code 69.
    Registry,
    /// The disk is full, or reading or writing failed: exit code 74.
    Storage,
    /// The sandbox can't be made on this host: exit code 77.
    Sandbox,
    /// The user interrupted svp: exit code 130.
    Interrupted,
}

/// What exactly failed, where code decides by it: messages are for people, and say what others chose.
///
/// It crosses processes with its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cause {
    /// The program to run is not in the container.
    CommandNotFound,
    /// The program to run is in the container, and can't be executed.
    CommandNotExecutable,
    /// The service does not run.
    ServiceNotRunning,
    /// The service's container was killed, and another one is about to be created.
    ContainerGone,
    /// There is no space left on the disk.
    DiskFull,
}

fn is_disk_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

impl Kind {
    /// The exit code of build, setup, query and the image commands.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Script => 1,
            Kind::Usage => 2,
            Kind::BadInput => 65,
            Kind::Registry => 69,
            Kind::Storage => 74,
            Kind::Sandbox => 77,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure: its kind, what failed on which thing, the way out, and the cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    cause: Option<Cause>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` whose message names the thing that failed.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Error(Box::new(Inner { kind, cause: None, message, hint: None, source: None }))
    }

    /// [`Kind::BadInput`] with a message.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(Kind::BadInput, message)
    }

    /// [`Kind::Usage`] with a message.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// [`Kind::Registry`] with a message.
    pub fn registry(message: impl Into<String>) -> Self {
        Self::new(Kind::Registry, message)
    }

    /// [`Kind::Sandbox`] with a message.
    pub fn sandbox(message: impl Into<String>) -> Self {
        Self::new(Kind::Sandbox, message)
    }

    /// [`Kind::Storage`]: doing `what` (such as "write") to `path` failed because of `source`.
    pub fn io(what: &str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let mut error =
            Self::new(Kind::Storage, format!("can't {what} {}", path.as_ref().display()));
        if is_disk_full(&source) {
            error = error.cause(Cause::DiskFull).hint(
                "the disk is full: free some space, for example with `svp rmi` or `svp rm`; \
                 `svp df` tells what uses it",
            );
        }
        error.source(source)
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds another way out to the one that the error tells.
    #[must_use]
    pub fn also_hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(match self.0.hint.take() {
            Some(first) if first.ends_with('?') => {
                format!("{first} Or {}", hint.trim_start_matches("or "))
            }
            Some(first) => format!("{first}; {hint}"),
            None => hint.trim_start_matches("or ").to_owned(),
        });
        self
    }

    /// Says what exactly failed, for code that decides by it.
    #[must_use]
    pub fn cause(mut self, cause: Cause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `context` before the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The same failure as another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Whether `cause` is what exactly failed.
    pub fn is(&self, cause: Cause) -> bool {
        self.0.cause == Some(cause)
    }

    /// The kind, which decides the exit code.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What failed, without the hint and the cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The way out, if there is one to tell.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// The message and its causes on one line; the hint is for the command line to show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // An `Error` prints its own causes.
            if error.is::<Error>() {
                break;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        match &self.0.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// An [`Error`] as it crosses a socket to another process of svp.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct WireError {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    message: String,
    hint: Option<String>,
}

impl From<Error> for WireError {
    fn from(error: Error) -> Self {
        WireError {
            kind: error.kind(),
            cause: error.0.cause,
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

impl From<WireError> for Error {
    fn from(wire: WireError) -> Self {
        let mut error = Error::new(wire.kind, wire.message);
        error.0.cause = wire.cause;
        match wire.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Names the path in an I/O error.
pub trait IoContext<T> {
    /// Turns the error into [`Kind::Storage`]: "can't `what` `path`: …".
    fn io(self, what: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn io(self, what: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::io(what, path, error))
    }
}

/// Adds context to this library's own errors.
pub trait Context<T> {
    /// Puts "`context`: " before the message.
    fn context(self, context: impl fmt::Display) -> Result<T>;
    /// Adds what the user can do about it, unless the error already says.
    fn hint(self, hint: impl Into<String>) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.context(context))
    }

    fn hint(self, hint: impl Into<String>) -> Result<T> {
        self.map_err(|error| if error.0.hint.is_some() { error } else { error.hint(hint) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_thing_and_its_causes_once() {
        let cause = Error::io("write", "/x/y", std::io::Error::from_raw_os_error(28));
        let error = Error::bad_input("layer 2").source(cause);
        assert_eq!(
            error.to_string(),
            "layer 2: can't write /x/y: No space left on device (os error 28)"
        );
    }

    #[test]
    fn a_full_disk_has_a_way_out() {
        let error = Error::io("write", "/x", std::io::Error::from_raw_os_error(28));
        assert!(error.hint_text().unwrap().contains("svp rmi"));
        assert_eq!(error.kind().exit_code(), 74);
    }

    #[test]
    fn a_cause_crosses_processes_and_outlives_context() {
        let error = Error::bad_input("can't run x").cause(Cause::CommandNotFound).context("y");
        let sent = serde_json::to_string(&WireError::from(error)).unwrap();
        let error = Error::from(serde_json::from_str::<WireError>(&sent).unwrap());
        assert!(error.is(Cause::CommandNotFound) && !error.is(Cause::DiskFull));
        // A monitor of an earlier svp knows no causes.
        let sent = r#"{"kind":"Usage","message":"m","hint":null}"#;
        assert!(serde_json::from_str::<WireError>(sent).is_ok());
    }
}
