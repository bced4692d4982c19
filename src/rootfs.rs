//! The only opener of paths inside a container's root.
//!
//! Two ways lead in. [`open_in_root`] resolves a path as the container itself would, symbolic links
//! included, and never gets outside. [`Cursor`] walks name by name through real directories, follows no
//! link, and holds descriptors instead of paths: what it stands on can't be exchanged under it, and no
//! depth of nesting runs it out of descriptors, path length or stack.

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

/// Opens `path` below `root` as a process whose root it is would: `..` stops at the root, absolute links
/// start there, and no `/proc` magic link leads anywhere.
///
/// # Errors
/// The kernel's.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    let mode =
        if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
    loop {
        match openat2(root, path, flags, mode, resolve) {
            // A rename elsewhere on the system can make the kernel unsure whether ".." stayed inside.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Opens the directory `name` in `parent`, not through a link. `name` must be a single name.
///
/// # Errors
/// The kernel's: `NOTDIR` for a link or any other file.
pub fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    debug_assert!(is_single(name));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => Err(Errno::NOTDIR),
        other => other,
    }
}

/// Whether `name` is one name and leads nowhere else.
fn is_single(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The bytes of the name.
    pub bytes: Box<[u8]>,
    /// What it is, a link being a link.
    pub kind: FileType,
}

/// The names in a directory, sorted by their bytes.
///
/// # Errors
/// The kernel's.
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

/// The most descriptors that a [`Cursor`] holds at once.
const WINDOW: usize = 64;

/// A place in a tree of directories: the names that lead there from the root, and descriptors of the
/// deepest of them.
pub struct Cursor {
    root: OwnedFd,
    names: Vec<Box<[u8]>>,
    /// Descriptors of the last levels; empty only at the root.
    open: VecDeque<OwnedFd>,
}

impl Cursor {
    /// A cursor that stands on `root`.
    ///
    /// # Errors
    /// The kernel's, if the descriptor can't be doubled.
    pub fn new(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        let root = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
        Ok(Cursor { root, names: Vec::new(), open: VecDeque::new() })
    }

    /// The directory it stands on.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.open.back().unwrap_or(&self.root).as_fd()
    }

    /// The root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// How many names below the root it stands.
    pub fn depth(&self) -> usize {
        self.names.len()
    }

    /// The names that lead from the root to where it stands.
    pub fn names(&self) -> &[Box<[u8]>] {
        &self.names
    }

    /// The path of `name` in the directory it stands on (of that itself, if `name` is empty).
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.names.join(&b'/');
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// Goes down into the directory `name`.
    ///
    /// # Errors
    /// As [`open_dir`]; it then stays where it is.
    pub fn push(&mut self, name: &[u8]) -> Result<(), Errno> {
        let dir = open_dir(self.dir(), name)?;
        self.names.push(name.into());
        self.open.push_back(dir);
        if self.open.len() > WINDOW {
            self.open.pop_front();
        }
        Ok(())
    }

    /// Goes up one level and tells the name that it left; `None` at the root.
    ///
    /// # Errors
    /// The kernel's, if a descriptor further up had been closed and can't be opened again.
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

    /// Goes to `depth` levels below the root, upwards.
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

    /// How many of `names`, from the root, lead to directories that it is in.
    pub fn common(&self, names: &[&[u8]]) -> usize {
        self.names.iter().zip(names).take_while(|(a, b)| ***a == ***b).count()
    }

    /// Goes to the directory that `names` lead to from the root.
    ///
    /// # Errors
    /// As [`Cursor::push`]; it then stands on the last directory that there is.
    pub fn go(&mut self, names: &[&[u8]]) -> Result<(), Errno> {
        let common = self.common(names);
        self.truncate(common)?;
        names[common..].iter().try_for_each(|name| self.push(name))
    }
}

/// Removes `name` from `parent`, with all that is in it if it is a directory; what `keep` says of stays,
/// and so do the directories above it, with the times that they have. `keep` gets paths that begin with `name`.
///
/// # Errors
/// The kernel's. Something that is not there is no error.
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
                    // Something in it was kept.
                    Err(Errno::NOTEMPTY) => true,
                    Err(error) => return Err(error),
                };
            if let (true, Some(times)) = (stays, times) {
                match utimensat(cursor.dir(), &*done, &times, AtFlags::SYMLINK_NOFOLLOW) {
                    // Somebody else's, in which the caller may work nevertheless.
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
    fn a_container_path_stays_inside() {
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
    fn depth_is_no_limit() {
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
    fn removal_keeps_what_is_to_be_kept_and_follows_nothing() {
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
