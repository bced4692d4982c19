//! Opens paths inside a container's root; no other module does.
//!
//! [`open_in_root`] resolves a path as a process inside the container would, symbolic links included, and
//! never escapes the root. [`Cursor`] walks real directories one name at a time, follows no link, and holds
//! descriptors instead of paths, so its current directory can't be swapped out, and no nesting depth exhausts
//! descriptors, PATH_MAX or the stack.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, Timespec, Timestamps, fstat,
    openat, openat2, unlinkat, utimensat,
};
use rustix::io::Errno;

/// The maximum number of repetitions because of concurrent renames.
const RENAMES: u32 = 1000;

/// Opens `path` as a process with the root directory `root` would: `..` stops at the root, absolute links
/// start there, and `/proc` magic links are refused.
///
/// # Errors
/// The kernel's errors; `AGAIN` if other processes rename directories without end.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    let mode =
        if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
    let mut attempts = 0;
    loop {
        match openat2(root, path, flags, mode, resolve) {
            Err(Errno::INTR) => {}
            // A concurrent rename kept the kernel from proving that ".." stayed inside the root. A service that renames
            // without end must not hold a command up.
            Err(Errno::AGAIN) if attempts < RENAMES => attempts += 1,
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Opens the directory `name` in `parent` without following a link. `name` must be a single component.
///
/// # Errors
/// The kernel's errors; `NOTDIR` for a link or any other file.
pub fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    debug_assert!(is_single(name));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => Err(Errno::NOTDIR),
        other => other,
    }
}

/// Returns whether `name` is a single path component other than `.` and `..`.
fn is_single(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name, as bytes.
    pub bytes: Box<[u8]>,
    /// The file type; a link counts as a link.
    pub kind: FileType,
}

/// Lists a directory, sorted by the bytes of the names.
///
/// # Errors
/// The kernel's errors.
pub fn list(dir: BorrowedFd<'_>) -> Result<Vec<Name>, Errno> {
    let dir =
        openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(&dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if matches!(bytes, b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(&dir, bytes, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        names.push(Name { bytes: bytes.into(), kind });
    }
    names.sort_unstable_by(|a, b| a.bytes.cmp(&b.bytes));
    Ok(names)
}

/// The maximum number of descriptors that a [`Cursor`] holds.
const WINDOW: usize = 64;

/// A position in a directory tree: the names from the root to it, and descriptors of the deepest
/// directories on that path.
pub struct Cursor {
    root: OwnedFd,
    names: Vec<Box<[u8]>>,
    /// Descriptors of the last levels; empty only at the root.
    open: VecDeque<OwnedFd>,
}

impl Cursor {
    /// Creates a cursor at `root`.
    ///
    /// # Errors
    /// The kernel's errors, if the descriptor can't be duplicated.
    pub fn new(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        let root = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
        Ok(Cursor { root, names: Vec::new(), open: VecDeque::new() })
    }

    /// Returns the current directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.open.back().unwrap_or(&self.root).as_fd()
    }

    /// Returns the depth of the current directory below the root.
    pub fn depth(&self) -> usize {
        self.names.len()
    }

    /// Returns the names from the root to the current directory.
    pub fn names(&self) -> &[Box<[u8]>] {
        &self.names
    }

    /// Returns the path of `name` in the current directory, or the directory's own path if `name` is empty.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.names.join(&b'/');
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// Descends into the directory `name`.
    ///
    /// # Errors
    /// As [`open_dir`]; on failure the cursor does not move.
    pub fn push(&mut self, name: &[u8]) -> Result<(), Errno> {
        let dir = open_dir(self.dir(), name)?;
        self.names.push(name.into());
        self.open.push_back(dir);
        if self.open.len() > WINDOW {
            self.open.pop_front();
        }
        Ok(())
    }

    /// Ascends one level and returns the name of the directory that it left; `None` at the root.
    ///
    /// # Errors
    /// The kernel's errors, if an ancestor's descriptor had been closed and can't be reopened.
    pub fn pop(&mut self) -> Result<Option<Box<[u8]>>, Errno> {
        let Some(name) = self.names.pop() else { return Ok(None) };
        self.open.pop_back();
        if self.open.is_empty() {
            let names = std::mem::take(&mut self.names);
            for name in &names {
                self.push(name)?;
            }
        }
        Ok(Some(name))
    }

    /// Ascends to `depth` levels below the root.
    ///
    /// # Errors
    /// As [`Cursor::pop`].
    pub fn truncate(&mut self, depth: usize) -> Result<(), Errno> {
        if depth == 0 {
            self.names.clear();
            self.open.clear();
        }
        while self.names.len() > depth {
            self.pop()?;
        }
        Ok(())
    }

    /// Returns the number of leading components that `names` and the path of the current directory share.
    pub fn common(&self, names: &[&[u8]]) -> usize {
        self.names.iter().zip(names).take_while(|(a, b)| ***a == ***b).count()
    }

    /// Moves to the directory at the path `names`, relative to the root.
    ///
    /// # Errors
    /// As [`Cursor::push`]; on failure the cursor stays at the last directory that exists.
    pub fn go(&mut self, names: &[&[u8]]) -> Result<(), Errno> {
        let common = self.common(names);
        self.truncate(common)?;
        names[common..].iter().try_for_each(|name| self.push(name))
    }
}

/// Removes `name` from `parent`, recursively. Keeps the paths for which `keep` returns true, and restores the
/// times of the directories above them. `keep` receives paths that begin with `name`.
///
/// # Errors
/// The kernel's errors. A missing `name` is not an error.
pub fn remove(
    parent: BorrowedFd<'_>,
    name: &[u8],
    keep: &dyn Fn(&[u8]) -> bool,
) -> Result<(), Errno> {
    let mut cursor = Cursor::new(parent)?;
    let mut todo = vec![(vec![name.to_vec().into_boxed_slice()], None)];
    while let Some((level, times)) = todo.last_mut() {
        let Some(name) = level.pop() else {
            let times = times.take();
            todo.pop();
            let Some(done) = cursor.pop()? else { continue };
            let stays = keep(&cursor.path_of(&done))
                || match unlinkat(cursor.dir(), &*done, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => false,
                    // It contains a kept path.
                    Err(Errno::NOTEMPTY) => true,
                    Err(error) => return Err(error),
                };
            if let (true, Some(times)) = (stays, times) {
                match utimensat(cursor.dir(), &*done, &times, AtFlags::SYMLINK_NOFOLLOW) {
                    // EPERM: the directory has another owner, though the caller may write to it.
                    Ok(()) | Err(Errno::PERM) => {}
                    Err(error) => return Err(error),
                }
            }
            continue;
        };
        match cursor.push(&name) {
            Ok(()) => {
                let names = list(cursor.dir())?;
                let stat = fstat(cursor.dir())?;
                let names = names.into_iter().map(|name| name.bytes).collect();
                todo.push((names, Some(times_of(&stat))));
            }
            Err(Errno::NOTDIR) => {
                if !keep(&cursor.path_of(&name)) {
                    unlinkat(cursor.dir(), &*name, AtFlags::empty())?;
                }
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as i64 },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat};
    use std::os::unix::fs::symlink;

    fn open(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .unwrap()
    }

    #[test]
    fn a_container_path_stays_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        std::fs::write(dir.path().join("outside"), "host").unwrap();
        std::fs::write(dir.path().join("root/outside"), "inside").unwrap();
        symlink("../../outside", dir.path().join("root/etc/link")).unwrap();
        symlink("/outside", dir.path().join("root/etc/absolute")).unwrap();
        let root = open(&dir.path().join("root"));
        for path in ["../outside", "etc/link", "etc/absolute", "/etc/../../../outside"] {
            let file = open_in_root(root.as_fd(), Path::new(path), OFlags::RDONLY).unwrap();
            let text = std::io::read_to_string(std::fs::File::from(file)).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
    }

    #[test]
    fn a_cursor_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        let mut cursor = Cursor::new(open(dir.path()).as_fd()).unwrap();
        assert_eq!(cursor.push(b"link"), Err(Errno::NOTDIR));
        assert_eq!(cursor.push(b"none"), Err(Errno::NOENT));
        cursor.push(b"real").unwrap();
        assert_eq!(cursor.path_of(b"x"), b"real/x");
    }

    #[test]
    fn depth_is_unlimited() {
        const DEPTH: usize = 3000;
        let dir = tempfile::tempdir().unwrap();
        let root = open(dir.path());
        let mut cursor = Cursor::new(root.as_fd()).unwrap();
        for _ in 0..DEPTH {
            mkdirat(cursor.dir(), c"d", Mode::from_raw_mode(0o700)).unwrap();
            cursor.push(b"d").unwrap();
        }
        assert_eq!(cursor.depth(), DEPTH);
        while cursor.pop().unwrap().is_some() {}
        assert_eq!(list(cursor.dir()).unwrap().len(), 1);
        remove(root.as_fd(), b"d", &|_| false).unwrap();
        assert_eq!(list(cursor.dir()).unwrap(), []);
    }

    #[test]
    fn removal_keeps_selected_paths_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/keep/x")).unwrap();
        std::fs::create_dir_all(dir.path().join("t/gone/x")).unwrap();
        std::fs::write(dir.path().join("t/keep/x/file"), "").unwrap();
        std::fs::write(dir.path().join("t/keep/other"), "").unwrap();
        std::fs::write(dir.path().join("canary"), "").unwrap();
        symlink("..", dir.path().join("t/gone/up")).unwrap();
        let root = open(dir.path());
        remove(root.as_fd(), b"t", &|path| path == b"t/keep/x/file").unwrap();
        assert!(dir.path().join("t/keep/x/file").exists());
        assert!(!dir.path().join("t/keep/other").exists());
        assert!(!dir.path().join("t/gone").exists());
        remove(root.as_fd(), b"t", &|_| false).unwrap();
        assert!(!dir.path().join("t").exists());
        assert!(dir.path().join("canary").exists());
        remove(root.as_fd(), b"never", &|_| false).unwrap();
    }
}
