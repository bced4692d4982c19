//! Creates temporary files outside of the store.

use std::fs::File;
use std::io::ErrorKind;

use crate::error::{Error, Result};

/// Creates a file without a name in `$TMPDIR`, else in /tmp.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage) with a hint.
pub(crate) fn temporary_file() -> Result<File> {
    tempfile::tempfile().map_err(|error| {
        let dir = std::env::temp_dir();
        let subject = match std::env::var_os("TMPDIR") {
            Some(_) => format!("TMPDIR is {}", dir.display()),
            None => format!("TMPDIR is not set, so svp uses {}", dir.display()),
        };
        let why = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "which is full",
            ErrorKind::NotFound if !dir.exists() => "which does not exist",
            ErrorKind::NotADirectory => "which is no directory",
            ErrorKind::ReadOnlyFilesystem => "which is on a file system that is mounted read-only",
            _ => "which is not writable",
        };
        Error::io("create a temporary file in", &dir, error).hint(format!(
            "{subject}, {why}: run `export TMPDIR=DIR` with another directory, such as /var/tmp"
        ))
    })
}
