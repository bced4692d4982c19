//! The one error type: what failed, on which object, and how to fix it.
//!
//! [`Kind`] selects the exit code, [`Cause`] is for code that acts on a failure, the message names the object,
//! the optional hint says how to fix it, and the source keeps the underlying error. A function either returns an
//! error or reports it, never both.

use std::fmt;
use std::io::ErrorKind::WouldBlock;
use std::path::Path;

/// The result type of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The category of a failure. Each kind has one documented exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// A script of the pack failed: exit code 1.
    Script,
    /// A script of the pack ran for longer than its time limit: exit code 124.
    TimedOut,
    /// The command line is invalid or can't be carried out: exit code 2.
    Usage,
    /// An image, layer, layout, pack or a pack's output is invalid: exit code 65.
    BadInput,
    /// A registry or the network to it failed: exit code 69.
    Registry,
    /// The disk is full, or reading or writing failed: exit code 74.
    Storage,
    /// This host can't create the sandbox: exit code 77.
    Sandbox,
    /// The user interrupted svp: exit code 130.
    Interrupted,
}

/// The precise cause, for code that acts on it. Code never matches on messages: they are for people, and partly
/// third-party text.
///
/// A cause is sent to other svp processes along with its error: see [`WireError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cause {
    /// The program to run is not in the container.
    CommandNotFound,
    /// The program to run is in the container, but can't be executed.
    CommandNotExecutable,
    /// The service is not running.
    ServiceNotRunning,
    /// The service's container was killed, and a new one is about to be created.
    ContainerGone,
    /// There is no space left on the disk.
    DiskFull,
    /// The host creates no further namespace of some kind.
    NoNamespaceLeft,
}

fn is_disk_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Returns how to raise the limit of resources that a system call has reached. EAGAIN is that of a new process or thread.
fn limit_hint(error: &std::io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EAGAIN => Some(
            "no further process or thread can be created: end some, or raise the limit RLIMIT_NPROC, which `ulimit -u` \
             shows, or that of the cgroup",
        ),
        libc::EMFILE => {
            Some("raise the limit on open files, RLIMIT_NOFILE, which `ulimit -n` shows")
        }
        libc::EFBIG => Some(
            "raise the limit on the size of files, RLIMIT_FSIZE, which `ulimit -f` shows; or the file system can't have \
             a file of this size",
        ),
        _ => None,
    }
}

impl Kind {
    /// Returns the exit code of build, setup, query and the image commands.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Script => 1,
            Kind::TimedOut => 124,
            Kind::Usage => 2,
            Kind::BadInput => 65,
            Kind::Registry => 69,
            Kind::Storage => 74,
            Kind::Sandbox => 77,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure: its kind, message, hint, cause and source.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    cause: Option<Cause>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error of `kind` whose message names the object that failed.
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

    /// [`Kind::Storage`]: `what` (a verb, such as "write") failed on `path` because of `source`.
    pub fn io(what: &str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let mut error =
            Self::new(Kind::Storage, format!("can't {what} {}", path.as_ref().display()));
        if let Some(hint) = limit_hint(&source).filter(|_| source.kind() != WouldBlock) {
            error = error.hint(hint);
        }
        if is_disk_full(&source) {
            error = error.cause(Cause::DiskFull).hint(
                "the disk is full: free some space, for example with `svp rmi` or `svp rm`; \
                 `svp df` shows disk use",
            );
        }
        error.source(source)
    }

    /// Sets the hint: how the user can fix it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Appends an alternative to the hint.
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

    /// Sets the precise cause, for code that acts on it.
    #[must_use]
    pub fn cause(mut self, cause: Cause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// Sets the underlying error.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets the error of starting a process or a thread as the underlying one, with a hint if a limit is reached.
    #[must_use]
    pub(crate) fn not_started(self, source: std::io::Error) -> Self {
        match limit_hint(&source) {
            Some(hint) => self.hint(hint),
            None => self,
        }
        .source(source)
    }

    /// Prefixes the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Changes the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Returns whether `cause` is the precise cause.
    pub fn is(&self, cause: Cause) -> bool {
        self.0.cause == Some(cause)
    }

    /// Returns the kind, which selects the exit code.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the message, without hint and source.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// Prints the message and its sources on one line; the command line prints the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // An `Error` prints its own sources.
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

/// A serialized [`Error`], sent over a socket between svp processes.
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
    /// Converts the error to [`Kind::Storage`]: "can't `what` `path`: …".
    fn io(self, what: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn io(self, what: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::io(what, path, error))
    }
}

/// Adds context to this library's own errors.
pub trait Context<T> {
    /// Prefixes the message with "`context`: ".
    fn context(self, context: impl fmt::Display) -> Result<T>;
    /// Sets the hint, unless the error already has one.
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
    fn an_error_names_the_object_and_each_source_once() {
        let cause = Error::io("write", "/x/y", std::io::Error::from_raw_os_error(28));
        let error = Error::bad_input("layer 2").source(cause);
        assert_eq!(
            error.to_string(),
            "layer 2: can't write /x/y: No space left on device (os error 28)"
        );
    }

    #[test]
    fn a_full_disk_has_a_hint() {
        let error = Error::io("write", "/x", std::io::Error::from_raw_os_error(28));
        assert!(error.hint_text().unwrap().contains("svp rmi"));
        assert_eq!(error.kind().exit_code(), 74);
    }

    #[test]
    fn a_limit_that_is_reached_has_a_hint() {
        let hint = |error: Error| error.hint_text().unwrap_or_default().to_owned();
        let os = std::io::Error::from_raw_os_error;
        for (errno, part) in [
            (libc::EAGAIN, "RLIMIT_NPROC"),
            (libc::EMFILE, "ulimit -n"),
            (libc::EFBIG, "ulimit -f"),
        ] {
            assert!(hint(Error::sandbox("x").not_started(os(errno))).contains(part));
            let expected = if errno == libc::EAGAIN { "" } else { part };
            assert!(hint(Error::io("write", "/x", os(errno))).contains(expected));
        }
        assert_eq!(hint(Error::io("read", "/x", os(libc::EAGAIN))), "");
        assert_eq!(hint(Error::sandbox("x").not_started(os(libc::ENOENT))), "");
    }

    #[test]
    fn a_cause_survives_serialization_and_context() {
        let error = Error::bad_input("can't run x").cause(Cause::CommandNotFound).context("y");
        let sent = serde_json::to_string(&WireError::from(error)).unwrap();
        let error = Error::from(serde_json::from_str::<WireError>(&sent).unwrap());
        assert!(error.is(Cause::CommandNotFound) && !error.is(Cause::DiskFull));
        // The monitor of an earlier svp sends no cause.
        let sent = r#"{"kind":"Usage","message":"m","hint":null}"#;
        assert!(serde_json::from_str::<WireError>(sent).is_ok());
    }
}
