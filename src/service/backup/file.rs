//! A file that takes another's place only when it is whole and on the disk.
//!
//! Where the file system can, it has no name until then: whatever ends svp, nothing of it stays.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
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
    /// Begins a file that is to be at `path`. It is 0600, because backups have secrets in them, or has the mode
    /// of the caller's own file that it replaces. Where everybody may put things, such as /tmp, no other user's
    /// link, pipe or mode says where it goes and who reads it.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if no file can be there,
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn create(path: &Path) -> Result<NewFile> {
        let target = behind_links(path)?;
        let mode = match fs::symlink_metadata(&target) {
            Ok(found) if found.is_file() && !is_own(&found) => Mode::RUSR | Mode::WUSR,
            Ok(found) if found.is_file() => Mode::from_raw_mode(found.mode() & 0o777),
            Ok(found) if found.is_dir() => {
                return Err(Error::usage(format!("{} is a directory", path.display()))
                    .hint("name a file in it"));
            }
            Ok(found) if found.file_type().is_socket() => {
                return Err(Error::usage(format!("{} is a socket", path.display()))
                    .hint("name a file, a pipe or a device"));
            }
            Ok(found) => {
                refuse_planted(&target, &found)?;
                let file = File::options().write(true).open(&target).io("open", path)?;
                return Ok(NewFile { file, target: None, temporary: None });
            }
            // A directory that isn't there is told below.
            Err(error) if error.kind() == io::ErrorKind::NotFound && has_name(path) => {
                Mode::RUSR | Mode::WUSR
            }
            Err(error) => return Err(Error::io("write", path, error)),
        };
        let dir = directory(&target);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let (file, temporary) = match rustix::fs::open(dir, flags | OFlags::TMPFILE, private) {
            Ok(file) => (file, None),
            Err(_) => {
                let name = beside(&target);
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                let file = rustix::fs::open(&name, flags, private)
                    .map_err(|error| Error::io("make a file in", dir, error))?;
                interrupt::watch_temporary(&name, |path| drop(fs::remove_file(path)));
                (file, Some(name))
            }
        };
        let new = NewFile { file: file.into(), target: Some(target), temporary };
        rustix::fs::fchmod(&new.file, mode).io("set the mode of", path)?;
        Ok(new)
    }

    /// Lets go of what was written.
    pub fn give_up(&mut self) {
        if self.target.is_some() {
            let _ = self.file.set_len(0);
        }
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
        sync_directory(directory(&target))
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

/// Has a new name reach the disk. Not every file system can do that, nor may everybody read a directory that he
/// writes into: the file is in its place all the same.
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

/// Where a path leads: a link's target is replaced, not the link, even if it isn't there yet.
fn behind_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    // As many as the kernel follows. A loop is told when it is opened.
    for _ in 0..40 {
        let Ok(to) = fs::read_link(&path) else { break };
        refuse_planted(&path, &fs::symlink_metadata(&path).io("read", &path)?)?;
        let next = directory(&path).join(to);
        // /proc/self/fd/1 leads somewhere, and its text says no path to there.
        if fs::symlink_metadata(&next).is_err() && fs::metadata(&path).is_ok() {
            break;
        }
        path = next;
    }
    Ok(path)
}

fn is_own(found: &Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

/// Refuses what another user has put where everybody may put things, by the kernel's rule for links there
/// (`fs.protected_symlinks` in proc(5)), which not every host has on.
fn refuse_planted(path: &Path, found: &Metadata) -> Result<()> {
    const SHARED: u32 = 0o1002;
    let dir = fs::metadata(directory(path)).io("read", directory(path))?;
    if is_own(found) || dir.mode() & SHARED != SHARED || dir.uid() == found.uid() {
        return Ok(());
    }
    let what = if found.is_symlink() { "link" } else { "pipe or device" };
    Err(Error::usage(format!(
        "{} is another user's {what}, where everybody can put one",
        path.display()
    ))
    .hint("name a file in a directory of your own"))
}

/// Whether a path ends with a name, not with a slash.
fn has_name(path: &Path) -> bool {
    !path.as_os_str().as_bytes().ends_with(b"/")
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
    use std::os::unix::fs::PermissionsExt;

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
    fn its_owner_alone_reads_it_unless_he_has_said_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        for mode in [0o600, 0o640, 0o400] {
            NewFile::create(&path).unwrap().finish().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            let next = if mode == 0o600 { 0o4640 } else { 0o400 };
            fs::set_permissions(&path, fs::Permissions::from_mode(next)).unwrap();
        }
    }

    #[test]
    fn what_others_put_where_everybody_may_does_not_lead_it() {
        // Only root can make another's things.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let other = Some(12_345);
        let [file, link, pipe, victim] = ["f", "l", "p", "v"].map(|name| dir.path().join(name));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::chown(&file, other, other).unwrap();
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        std::os::unix::fs::lchown(&link, other, other).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        std::os::unix::fs::chown(&pipe, other, other).unwrap();
        for no in [&link, &pipe] {
            let error = NewFile::create(no).unwrap_err();
            assert!(error.to_string().contains("another user's"), "{error}");
        }
        NewFile::create(&file).unwrap().finish().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        // In a directory of one's own they are as one wants them.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        NewFile::create(&link).unwrap().finish().unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"");
    }

    #[test]
    fn a_directory_need_not_be_readable() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o300)).unwrap();
        NewFile::create(&dir.path().join("b")).unwrap().finish().unwrap();
        assert!(dir.path().join("b").exists());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
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
        // A link to where nothing is yet.
        let ahead = dir.path().join("ahead");
        std::os::unix::fs::symlink("c", &ahead).unwrap();
        let mut new = NewFile::create(&ahead).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(dir.path().join("c")).unwrap(), b"new");
        assert!(fs::symlink_metadata(&ahead).unwrap().is_symlink());
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let long = dir.path().join("n".repeat(300));
        for no in [dir.path(), &socket, &dir.path().join("none/"), &dir.path().join("no/b"), &long]
        {
            assert!(NewFile::create(no).is_err(), "{}", no.display());
        }
        let (_end, pipe) = io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        assert!(!NewFile::create(Path::new(&pipe)).unwrap().is_a_file());
        let null = NewFile::create(Path::new("/dev/null")).unwrap();
        assert!(!null.is_a_file());
        null.finish().unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
