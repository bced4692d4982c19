//! Removes directory trees of any depth, without recursion and without paths: a hostile script may have created them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Removes `name`, a file of any type, from the directory `parent`; a missing `name` is not an error.
///
/// Moves each nested directory to the top before emptying it, so that two descriptors suffice at any depth.
/// Follows no symbolic link.
///
/// # Errors
/// The kernel's errors.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    // Try rmdir first: an empty directory of an unmapped owner can be removed but not opened.
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let top = open_dir(parent, name)?;
    let mut moved = 0u64;
    while let Some(next) = empty_of_files(top.as_fd(), &mut moved)? {
        let dir = open_dir(top.as_fd(), next.as_str())?;
        lift(dir.as_fd(), top.as_fd(), &mut moved)?;
        drop(dir);
        unlinkat(&top, &next, AtFlags::REMOVEDIR)?;
    }
    drop(top);
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Unlinks the files in `top` until it finds a directory; returns that directory's name, `None` if there is none.
fn empty_of_files(top: BorrowedFd<'_>, moved: &mut u64) -> rustix::io::Result<Option<String>> {
    for entry in Dir::read_from(top)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if is_dir(top, name, entry.file_type())? {
            // Rename a directory whose name isn't UTF-8, so that the caller can handle it as a string.
            return match name.to_str() {
                Ok(name) => Ok(Some(name.to_owned())),
                Err(_) => {
                    let unused = fresh_name(top, moved)?;
                    renameat(top, name, top, unused.as_str())?;
                    Ok(Some(unused))
                }
            };
        }
        unlinkat(top, name, AtFlags::empty())?;
    }
    Ok(None)
}

/// Unlinks the files of `dir` and moves its directories to `top`.
fn lift(dir: BorrowedFd<'_>, top: BorrowedFd<'_>, moved: &mut u64) -> rustix::io::Result<()> {
    loop {
        let mut found = false;
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            if is_dir(dir, name, entry.file_type())? {
                let unused = fresh_name(top, moved)?;
                renameat(dir, name, top, unused.as_str())?;
            } else {
                unlinkat(dir, name, AtFlags::empty())?;
            }
        }
        // Removing entries while reading may skip some: read again until none are left.
        if !found {
            return Ok(());
        }
    }
}

fn is_dir(dir: BorrowedFd<'_>, name: &std::ffi::CStr, kind: FileType) -> rustix::io::Result<bool> {
    match kind {
        FileType::Unknown => {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileType::from_raw_mode(stat.st_mode).is_dir())
        }
        kind => Ok(kind.is_dir()),
    }
}

/// Returns an unused name in `top`.
fn fresh_name(top: BorrowedFd<'_>, moved: &mut u64) -> rustix::io::Result<String> {
    loop {
        *moved += 1;
        let name = format!(".svp-removed-{moved}");
        match rustix::fs::statat(top, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(name),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
}

/// Opens a directory for changes, granting the owner rwx first: the script may have taken that away.
fn open_dir(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, flags, Mode::empty())
        }
        Ok(fd) => {
            // Ignore a failure: if access is missing, the next call on the directory reports it.
            let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
            Ok(fd)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn removes_deep_unreadable_and_oddly_named_trees_and_nothing_else() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("canary"), "x").unwrap();
        let tree = tmp.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut dir = std::fs::File::open(&tree).unwrap().into();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&dir, "deep", Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/canary", &dir, "link").unwrap();
            dir = openat(&dir, "deep", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        std::os::unix::fs::symlink(tmp.path().join("canary"), tree.join("out")).unwrap();
        std::fs::create_dir_all(tree.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")).join("x"))
            .unwrap();
        std::fs::create_dir_all(tree.join(".svp-removed-1/y")).unwrap();
        rustix::fs::chmod(tree.join(".svp-removed-1"), Mode::empty()).unwrap();
        let parent = std::fs::File::open(tmp.path()).unwrap();
        remove_tree(parent.as_fd(), "tree").unwrap();
        remove_tree(parent.as_fd(), "tree").unwrap();
        assert!(!tree.exists());
        assert!(tmp.path().join("canary").exists());
    }
}
