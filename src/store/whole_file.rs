//! A file that nobody sees before it is whole, and that is gone with its writer.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, renameat, unlinkat};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::sync_dir;
use crate::error::{Error, IoContext, Result};

/// What a file is called until it has its own name, as far as it needs one.
const TEMPORARY: &str = ".svp-";

/// A file in the making. Dropped, it is gone; killed, its writer leaves nothing where the file system has files
/// without a name, else a `.svp-` file.
#[derive(Debug)]
pub(super) struct WholeFile {
    target: PathBuf,
    file: Making,
}

#[derive(Debug)]
enum Making {
    Unnamed(File),
    Named(NamedTempFile),
}

impl WholeFile {
    /// Begins what will be `target`, with the mode that the umask leaves of 0666.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(super) fn begin(target: &Path) -> Result<Self> {
        let dir = parent(target);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = match openat(CWD, dir, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => Making::Unnamed(file.into()),
            // What file systems say that don't have it, and kernels.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let file = tempfile::Builder::new()
                    .prefix(TEMPORARY)
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(dir);
                Making::Named(file.io("make a file in", dir)?)
            }
            Err(error) => return Err(Error::io("make a file in", dir, error)),
        };
        Ok(WholeFile { target: target.to_owned(), file })
    }

    /// Gives it its name, in the place of what has the name now, and makes that last.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(super) fn finish(self) -> Result<()> {
        let WholeFile { target, file } = self;
        match file {
            Making::Named(file) => {
                file.as_file().sync_all().io("sync", &target)?;
                file.persist(&target).map_err(|error| Error::io("write", &target, error.error))?;
            }
            Making::Unnamed(file) => {
                file.sync_all().io("sync", &target)?;
                name(&file, &target).io("write", &target)?;
            }
        }
        sync_dir(parent(&target))
    }
}

impl Write for WholeFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Making::Unnamed(file) => file.write(buf),
            Making::Named(file) => file.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Links an unnamed file to `target`. A link replaces nothing, a rename needs a name: where there is something,
/// the whole file has another name for a moment.
fn name(file: &File, target: &Path) -> rustix::io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |to: &Path| linkat(CWD, &own, CWD, to, AtFlags::SYMLINK_FOLLOW);
    match link(target) {
        Err(Errno::EXIST) => {}
        other => return other,
    }
    loop {
        let temporary = parent(target).join(format!("{TEMPORARY}{:016x}", rand::random::<u64>()));
        match link(&temporary) {
            Err(Errno::EXIST) => continue,
            other => other?,
        }
        return renameat(CWD, &temporary, CWD, target).inspect_err(|_| {
            let _ = unlinkat(CWD, &temporary, AtFlags::empty());
        });
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_there_when_it_is_finished_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        for content in ["new", "newer"] {
            let before = names();
            let mut file = WholeFile::begin(&target).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            assert_eq!(names(), before);
            file.finish().unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), content);
            assert_eq!(names(), 1);
        }
        let mut dropped = WholeFile::begin(&target).unwrap();
        dropped.write_all(b"x").unwrap();
        drop(dropped);
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), names()), ("newer", 1));

        // A link is replaced, not what it leads to.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("x", &link).unwrap();
        WholeFile::begin(&link).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "newer");
        // And a directory is not.
        fs::create_dir(dir.path().join("dir")).unwrap();
        WholeFile::begin(&dir.path().join("dir")).unwrap().finish().unwrap_err();
        assert_eq!(names(), 3);
    }

    #[test]
    fn where_files_have_names_it_works_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let file = Making::Named(NamedTempFile::new_in(dir.path()).unwrap());
        let mut file = WholeFile { target: target.clone(), file };
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
