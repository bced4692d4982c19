//! A file that takes another's place only when it is whole and on the disk.
//!
//! Where the file system can, it has no name until then: whatever ends svp, nothing of it stays.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, linkat};

use crate::error::{Error, IoContext, Result};
use crate::interrupt;

/// A file that is being written, which others don't see yet. Dropped means gone.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Where it is to be; `None` where it is a device or a pipe that is written as it is.
    target: Option<PathBuf>,
    /// Its name for the time being, if it has one.
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file (0600: backups have secrets in them) that is to be at `path`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if a directory is there,
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn create(path: &Path) -> Result<NewFile> {
        // A link's target is replaced, not the link.
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let kind = fs::metadata(&target).map(|found| found.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => {
                return Err(Error::usage(format!("{} is a directory", path.display()))
                    .hint("name a file in it"));
            }
            Ok(kind) if kind.is_char_device() || kind.is_fifo() => {
                let file = File::options().write(true).open(path).io("open", path)?;
                return Ok(NewFile { file, target: None, temporary: None });
            }
            _ => {}
        }
        let dir = directory(&target);
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        if let Ok(file) = rustix::fs::open(dir, flags, mode) {
            return Ok(NewFile { file: file.into(), target: Some(target), temporary: None });
        }
        let name = beside(&target);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(&name, flags, mode).io("make a file beside", path)?;
        interrupt::watch_temporary(&name, |path| drop(fs::remove_file(path)));
        Ok(NewFile { file: file.into(), target: Some(target), temporary: Some(name) })
    }

    /// Whether what is written can be read again before it is finished.
    pub fn is_a_file(&self) -> bool {
        self.target.is_some()
    }

    /// The file, to be written or read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place, which is as it was until then.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn finish(mut self) -> Result<()> {
        let Some(target) = self.target.clone() else { return Ok(()) };
        interrupt::check()?;
        self.file.flush().and_then(|()| self.file.sync_all()).io("sync", &target)?;
        let name = match self.temporary.clone() {
            Some(name) => name,
            None => {
                let name = beside(&target);
                let old = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let here = rustix::fs::CWD;
                linkat(here, old, here, &name, AtFlags::SYMLINK_FOLLOW)
                    .io("make a file beside", &target)?;
                self.temporary = Some(name.clone());
                name
            }
        };
        fs::rename(&name, &target).io("write", &target)?;
        interrupt::forget_temporary(&name);
        self.temporary = None;
        let dir = directory(&target);
        File::open(dir).and_then(|dir| dir.sync_all()).io("sync", dir)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = fs::remove_file(name);
            interrupt::forget_temporary(name);
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name of our own in the same directory.
fn beside(path: &Path) -> PathBuf {
    directory(path).join(format!(".svp-backup-{:016x}", rand::random::<u64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        fs::write(&path, "old").unwrap();
        let mut new = NewFile::create(&path).unwrap();
        new.write_all(b"part").unwrap();
        drop(new);
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"old".to_vec(), vec!["b".into()])
        );
        let mut new = NewFile::create(&path).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"new".to_vec(), vec!["b".into()])
        );
    }

    #[test]
    fn a_link_stays_and_what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("b"), dir.path().join("l"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("b", &link).unwrap();
        let mut new = NewFile::create(&link).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(NewFile::create(dir.path()).is_err());
        let null = NewFile::create(Path::new("/dev/null")).unwrap();
        assert!(!null.is_a_file());
        null.finish().unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
