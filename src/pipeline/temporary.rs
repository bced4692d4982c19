//! Creates temporary files outside of the store.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Creates a file without a name in `$TMPDIR`, else in /tmp.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage) with a hint.
pub(crate) fn temporary_file() -> Result<File> {
    tempfile::tempfile().map_err(|error| cannot("create", error))
}

/// Checks that temporary files can be created and written: a full file system may have room for a name, but not for a
/// byte of content.
///
/// # Errors
/// As those of [`temporary_file`] and [`cannot_write`].
pub(crate) fn check_temporary_files() -> Result<()> {
    temporary_file()?.write_all(&[1; 4096]).map_err(cannot_write)
}

/// A temporary file that keeps why it could not be written, for a writer in between that does not know its name.
pub(super) struct TemporaryWriter {
    file: File,
    failed: Option<i32>,
}

impl TemporaryWriter {
    /// Creates a temporary file.
    ///
    /// # Errors
    /// As those of [`temporary_file`].
    pub(super) fn create() -> Result<TemporaryWriter> {
        Ok(TemporaryWriter { file: temporary_file()?, failed: None })
    }

    /// Returns the error of writing the file if that has failed, else `error`.
    pub(super) fn name(&self, error: Error) -> Error {
        match self.failed {
            Some(errno) => cannot_write(io::Error::from_raw_os_error(errno)),
            None => error,
        }
    }

    /// Returns the file.
    pub(super) fn into_file(self) -> File {
        self.file
    }
}

impl Write for TemporaryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            if error.kind() != ErrorKind::Interrupted {
                self.failed = error.raw_os_error();
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns the error for a temporary file that can't be written.
pub(super) fn cannot_write(error: io::Error) -> Error {
    cannot("write", error)
}

fn cannot(what: &str, error: io::Error) -> Error {
    let dir = std::env::temp_dir();
    let subject = match std::env::var_os("TMPDIR") {
        Some(_) => format!("TMPDIR is {}", dir.display()),
        None => format!("TMPDIR is not set, so svp uses {}", dir.display()),
    };
    let failed = format!("{what} a temporary file in");
    if error.kind() == ErrorKind::FileTooLarge {
        return Error::io(&failed, &dir, error);
    }
    let why = why(&error, &dir);
    Error::io(&failed, &dir, error).hint(format!(
        "{subject}, {why}: run `export TMPDIR=DIR` with another directory, such as /var/tmp"
    ))
}

fn why(error: &io::Error, dir: &Path) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "which is full",
        ErrorKind::NotFound if !dir.exists() => "which does not exist",
        ErrorKind::NotADirectory => "which is no directory",
        ErrorKind::ReadOnlyFilesystem => "which is on a file system that is mounted read-only",
        _ => "which is not writable",
    }
}
