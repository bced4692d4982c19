//! Writes a file atomically: it gets its name only once its content is complete and on disk.
//!
//! With O_TMPFILE the file has no name until then, so a killed writer leaves nothing behind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};
use crate::interrupt;
use crate::random_name::random_name;

/// The prefix of temporary names.
const TEMPORARY: &str = ".svp-";

/// A file being written. Dropping it discards the file. A killed writer leaves nothing if the file system supports
/// O_TMPFILE, else a `.svp-` file.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    file: File,
    target: PathBuf,
    /// The temporary name; `None` for an unnamed file.
    temporary: Option<PathBuf>,
}

impl AtomicFile {
    /// Creates the file that will become `target`, with `mode` less the umask.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn create(target: &Path, mode: Mode) -> Result<AtomicFile> {
        let dir = directory(target);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match openat(CWD, dir, flags, mode) {
            Ok(file) => {
                Ok(AtomicFile { file: file.into(), target: target.to_owned(), temporary: None })
            }
            // The file system or the kernel doesn't support O_TMPFILE.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                AtomicFile::create_named(target, mode)
            }
            Err(error) => Err(Error::io("create a file in", dir, error)),
        }
    }

    fn create_named(target: &Path, mode: Mode) -> Result<AtomicFile> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let name = temporary_path(target);
        let file = openat(CWD, &name, flags, mode).io("create a file in", directory(target))?;
        interrupt::watch_temporary(&name, |path| drop(fs::remove_file(path)));
        Ok(AtomicFile { file: file.into(), target: target.to_owned(), temporary: Some(name) })
    }

    /// Returns the file, for writing or reading.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Fsyncs the file, gives it the name of its target, replacing an existing file, and fsyncs the directory.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn finish(mut self) -> Result<()> {
        self.file.sync_all().io("sync", &self.target)?;
        if self.temporary.is_none() && self.link_to_target().io("write", &self.target)? {
            return sync_directory(directory(&self.target));
        }
        if let Some(name) = &self.temporary {
            fs::rename(name, &self.target).io("write", &self.target)?;
            interrupt::forget_temporary(name);
            self.temporary = None;
        }
        sync_directory(directory(&self.target))
    }

    /// Links an unnamed file to its target; returns whether that succeeded. linkat(2) replaces no file, and
    /// rename(2) needs a name: if the target exists, links the file to a temporary name instead.
    fn link_to_target(&mut self) -> rustix::io::Result<bool> {
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = |to: &Path| linkat(CWD, &unnamed, CWD, to, AtFlags::SYMLINK_FOLLOW);
        match link(&self.target) {
            Err(Errno::EXIST) => {}
            other => return other.map(|()| true),
        }
        loop {
            let name = temporary_path(&self.target);
            match link(&name) {
                Err(Errno::EXIST) => continue,
                other => other?,
            }
            self.temporary = Some(name);
            return Ok(false);
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            // Best effort: a later command removes a leftover file.
            let _ = fs::remove_file(name);
            interrupt::forget_temporary(name);
        }
    }
}

/// Fsyncs a directory, so that a new name is on disk. Ignores file systems without support and directories that the
/// caller may write but not read: the file is in place nevertheless.
fn sync_directory(dir: &Path) -> Result<()> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
            ) =>
        {
            Err(Error::io("sync", dir, error))
        }
        _ => Ok(()),
    }
}

/// Returns the directory of a path: `.` for a bare name.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns a new temporary path in the directory of `path`.
fn temporary_path(path: &Path) -> PathBuf {
    directory(path).join(format!("{TEMPORARY}{}", random_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Mode = Mode::from_raw_mode(0o666);

    #[test]
    fn the_target_appears_only_when_finished() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        for content in ["new", "newer"] {
            let before = names();
            let mut file = AtomicFile::create(&target, ALL).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            assert_eq!(names(), before);
            file.finish().unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), content);
            assert_eq!(names(), 1);
        }
        let mut dropped = AtomicFile::create(&target, ALL).unwrap();
        dropped.write_all(b"x").unwrap();
        drop(dropped);
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), names()), ("newer", 1));

        // A link is replaced, not its target.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("x", &link).unwrap();
        AtomicFile::create(&link, ALL).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "newer");
        // A directory is not replaced.
        fs::create_dir(dir.path().join("dir")).unwrap();
        AtomicFile::create(&dir.path().join("dir"), ALL).unwrap().finish().unwrap_err();
        assert_eq!(names(), 3);
    }

    #[test]
    fn works_without_o_tmpfile() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let mut file = AtomicFile::create_named(&target, ALL).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(names(), 1);
        file.finish().unwrap();
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), names()), ("new", 1));
        drop(AtomicFile::create_named(&target, ALL).unwrap());
        assert_eq!(names(), 1);
    }
}
