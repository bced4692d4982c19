//! The output file of a backup: its path and its mode.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::atomic_file::{AtomicFile, directory};
use crate::error::{Error, IoContext, Result};
use crate::interrupt;

/// A file being written, which others don't see before it is complete. Dropping it discards it.
#[derive(Debug)]
pub(crate) enum OutputFile {
    /// A regular file.
    Regular(AtomicFile),
    /// A device or a pipe, which is written directly.
    Special(File),
}

impl OutputFile {
    /// Creates a file that will replace `path`. Its mode is 0600, because backups contain secrets, or that of the
    /// caller's own file that it replaces. In world-writable directories such as /tmp, other users' links, pipes and
    /// file modes affect neither its path nor who can read it.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if `path` can't be a file,
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn create(path: &Path) -> Result<OutputFile> {
        let target = resolve_links(path)?;
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
                return Ok(OutputFile::Special(file));
            }
            // A missing directory is reported below.
            Err(error) if error.kind() == io::ErrorKind::NotFound && ends_with_name(path) => {
                Mode::RUSR | Mode::WUSR
            }
            Err(error) => return Err(Error::io("write", path, error)),
        };
        let file = AtomicFile::create(&target, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fchmod(file.file(), mode).io("set the mode of", path)?;
        Ok(OutputFile::Regular(file))
    }

    /// Discards the bytes written so far.
    pub(crate) fn discard(&mut self) {
        if let OutputFile::Regular(file) = self {
            // Best effort: the file is removed later anyway.
            let _ = file.file().set_len(0);
        }
    }

    /// Whether the written bytes can be read back before it is finished.
    pub(crate) fn is_regular(&self) -> bool {
        matches!(self, OutputFile::Regular(_))
    }

    /// The file, to be written or read.
    pub(crate) fn file(&self) -> &File {
        match self {
            OutputFile::Regular(file) => file.file(),
            OutputFile::Special(file) => file,
        }
    }

    /// Moves the file to its path, which is unchanged until then.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn finish(self) -> Result<()> {
        let OutputFile::Regular(file) = self else { return Ok(()) };
        interrupt::check()?;
        file.finish()
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            OutputFile::Regular(file) => file.write(bytes),
            OutputFile::Special(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            OutputFile::Regular(file) => file.flush(),
            OutputFile::Special(file) => file.flush(),
        }
    }
}

/// Resolves a path: the target of a link is replaced, not the link, even if it does not exist yet.
fn resolve_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    // The kernel's limit. Opening reports a loop.
    for _ in 0..40 {
        let Ok(to) = fs::read_link(&path) else { break };
        refuse_planted(&path, &fs::symlink_metadata(&path).io("read", &path)?)?;
        let next = directory(&path).join(to);
        // The text of /proc/self/fd/1 is not always a path.
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

/// Refuses another user's entry in a world-writable directory, by the kernel's rule for links
/// (`fs.protected_symlinks` in proc(5)), which not every host enables.
fn refuse_planted(path: &Path, found: &Metadata) -> Result<()> {
    const SHARED: u32 = 0o1002;
    let dir = fs::metadata(directory(path)).io("read", directory(path))?;
    if is_own(found) || dir.mode() & SHARED != SHARED || dir.uid() == found.uid() {
        return Ok(());
    }
    let what = if found.is_symlink() { "link" } else { "pipe or device" };
    Err(Error::usage(format!(
        "{} is another user's {what} in a world-writable directory",
        path.display()
    ))
    .hint("name a file in a directory of your own"))
}

/// Whether a path ends with a name, not with a slash.
fn ends_with_name(path: &Path) -> bool {
    !path.as_os_str().as_bytes().ends_with(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        fs::write(&path, "old").unwrap();
        let mut new = OutputFile::create(&path).unwrap();
        new.write_all(b"part").unwrap();
        drop(new);
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"old".to_vec(), vec!["b".into()])
        );
        let mut new = OutputFile::create(&path).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"new".to_vec(), vec!["b".into()])
        );
    }

    #[test]
    fn the_mode_is_0600_or_that_of_the_replaced_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        for mode in [0o600, 0o640, 0o400] {
            OutputFile::create(&path).unwrap().finish().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            let next = if mode == 0o600 { 0o4640 } else { 0o400 };
            fs::set_permissions(&path, fs::Permissions::from_mode(next)).unwrap();
        }
    }

    #[test]
    fn files_of_other_users_in_a_world_writable_directory_have_no_effect() {
        // Only root can create files of another user.
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
            let error = OutputFile::create(no).unwrap_err();
            assert!(error.to_string().contains("another user's"), "{error}");
        }
        OutputFile::create(&file).unwrap().finish().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        // Links in the user's own directory are followed.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        OutputFile::create(&link).unwrap().finish().unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"");
    }

    #[test]
    fn a_directory_need_not_be_readable() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o300)).unwrap();
        OutputFile::create(&dir.path().join("b")).unwrap().finish().unwrap();
        assert!(dir.path().join("b").exists());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn links_stay_and_special_files_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("b"), dir.path().join("l"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("b", &link).unwrap();
        let mut new = OutputFile::create(&link).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // A dangling link.
        let ahead = dir.path().join("ahead");
        std::os::unix::fs::symlink("c", &ahead).unwrap();
        let mut new = OutputFile::create(&ahead).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(dir.path().join("c")).unwrap(), b"new");
        assert!(fs::symlink_metadata(&ahead).unwrap().is_symlink());
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let long = dir.path().join("n".repeat(300));
        for no in [dir.path(), &socket, &dir.path().join("none/"), &dir.path().join("no/b"), &long]
        {
            assert!(OutputFile::create(no).is_err(), "{}", no.display());
        }
        let (_end, pipe) = io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        assert!(!OutputFile::create(Path::new(&pipe)).unwrap().is_regular());
        let null = OutputFile::create(Path::new("/dev/null")).unwrap();
        assert!(!null.is_regular());
        null.finish().unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
