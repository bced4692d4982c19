//! Creates a layer's entry in a tree, with its content and metadata.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode as Permissions, OFlags, Uid, XattrFlags, chownat, fchmod, fchown,
    fstat, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::layer::entry::{Entry, EntryKind, Timestamp, Xattrs};
use crate::layer::meta::{self, NODE, OWNER, Ownership};
use crate::layer::path::check_symlink_target;
use crate::layer::read::TarReader;
use crate::layer::unpack::tree::{DEFAULT_ACL, Deferred, Found, Tree, failure, times};
use crate::layer::unpack::{Loss, Mode, Unrepresented, attributes};

/// Aligned runs of this many zero bytes become holes.
const HOLE: usize = 64 * 1024;

impl Tree {
    /// Creates `entry` as `name` in the current directory, replacing an existing file.
    pub(super) fn write_entry(
        &mut self,
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<'_>,
    ) -> Result<()> {
        match entry.kind {
            EntryKind::Directory => {
                self.make_directory(name)?;
                return self.directory_metadata(entry);
            }
            EntryKind::File => {
                let file = File::from(self.create_file(name)?);
                self.fill(&file, name, entry, reader)?;
                self.file_metadata(file.as_fd(), name, entry, Xattrs::new())?;
            }
            EntryKind::Symlink => self.make_symlink(name, entry)?,
            EntryKind::HardLink => self.link(name, &entry.link)?,
            EntryKind::Fifo => self.make_fifo(name, entry)?,
            EntryKind::CharDevice | EntryKind::BlockDevice => self.make_device(name, entry)?,
        }
        self.mark_created(name);
        Ok(())
    }

    /// Runs `make`; if the name exists, removes it and tries again.
    pub(super) fn make<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T> {
        let mut made = make(self.cursor.dir(), name);
        if matches!(made, Err(Errno::EXIST)) {
            self.remove_existing(name)?;
            made = make(self.cursor.dir(), name);
        }
        made.map_err(|error| failure("create", &self.cursor.path_of(name), error))
    }

    pub(super) fn create_file(&mut self, name: &[u8]) -> Result<OwnedFd> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.make(name, |dir, name| openat(dir, name, flags, Permissions::from_raw_mode(0o600)))
    }

    /// Creates the directory `name`, or keeps an existing one, and enters it.
    fn make_directory(&mut self, name: &[u8]) -> Result<()> {
        let path = self.cursor.path_of(name);
        let mut hides = false;
        match mkdirat(self.cursor.dir(), name, Permissions::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = self.stat(name)?;
                let is_dir = matches!(&found, Found::File(stat)
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
                if !is_dir {
                    // A new directory must keep hiding what the whiteout hid.
                    hides = self.remove_existing(name)?;
                    mkdirat(self.cursor.dir(), name, Permissions::from_raw_mode(0o700))
                        .map_err(|error| failure("create", &path, error))?;
                }
            }
            Err(error) => return Err(failure("create", &path, error)),
        }
        self.mark_created(name);
        self.push(name)?.map_err(|error| failure("open", &path, error))?;
        if hides { self.set_opaque() } else { Ok(()) }
    }

    /// Replaces the metadata of the current directory with that of `entry`.
    pub(super) fn directory_metadata(&mut self, entry: &Entry) -> Result<()> {
        let (ownership, xattrs) = self.representable(b"", entry, Xattrs::new());
        self.set_directory_metadata(ownership, entry.mtime, &xattrs, true)
    }

    pub(super) fn set_directory_metadata(
        &mut self,
        ownership: Ownership,
        mtime: Timestamp,
        xattrs: &Xattrs,
        replace: bool,
    ) -> Result<()> {
        let path = self.cursor.path_of(b"");
        let dir = self.cursor.dir();
        if replace {
            let failed = |error| failure("set an extended attribute of", &path, error);
            for name in meta::read_xattrs(dir).map_err(failed)?.into_keys() {
                let overlays = self.mode == Mode::Overlay && meta::unescape(&name).is_none();
                if xattrs.contains_key(&name) || overlays {
                    continue;
                }
                if meta::is_portable(&name) {
                    rustix::fs::fremovexattr(dir, &*name).map_err(failed)?;
                }
            }
        }
        let dir =
            dir.try_clone_to_owned().map_err(|error| Error::io("open", "a directory", error))?;
        // An unprivileged owner must be able to fill it first.
        let during = Ownership { mode: ownership.mode | 0o700, ..ownership };
        let mut xattrs = xattrs.clone();
        let default_acl = xattrs.remove(DEFAULT_ACL);
        let given = self.set_metadata(dir.as_fd(), b"", during, &xattrs)?;
        let lasting = ownership.mode & (given.mode | 0o700) | given.mode & !0o700;
        let mode = (lasting != given.mode).then_some(lasting);
        self.set_deferred(Deferred { mtime, mode, default_acl });
        Ok(())
    }

    /// Returns the ownership that can be set for `entry`, and its attributes, including records of the difference.
    fn representable(&mut self, name: &[u8], entry: &Entry, more: Xattrs) -> (Ownership, Xattrs) {
        let meant = Ownership { uid: entry.uid, gid: entry.gid, mode: entry.mode };
        let mut possible = meant.possible(&self.ids);
        if entry.kind == EntryKind::File && meant.mode & 0o6000 != 0 {
            possible.mode &= if self.drop_set_id { !0o6000 } else { !0 };
            self.report.set_id(self.mode, self.cursor.path_of(name), meant.mode, possible.mode);
        }
        let mut xattrs = attributes(entry, self.mode);
        xattrs.extend(more);
        if (possible.uid, possible.gid) != (meant.uid, meant.gid) {
            let path = self.cursor.path_of(name);
            let (uid, gid) = (meant.uid, meant.gid);
            match (self.mode, entry.kind) {
                (Mode::Plain, _) => self.report.lose(path, Loss::Owner { uid, gid }),
                (_, EntryKind::Symlink | EntryKind::Fifo) => {
                    self.report.not_represented(Unrepresented { path, uid, gid });
                }
                _ => drop(xattrs.insert(OWNER.to_vec(), meant.record(possible))),
            }
        }
        (possible, xattrs)
    }

    fn file_metadata(
        &mut self,
        file: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        records: Xattrs,
    ) -> Result<()> {
        let (ownership, xattrs) = self.representable(name, entry, records);
        self.set_file_metadata(file, name, ownership, entry.mtime, &xattrs)
    }

    pub(super) fn set_file_metadata(
        &mut self,
        file: BorrowedFd<'_>,
        name: &[u8],
        ownership: Ownership,
        mtime: Timestamp,
        xattrs: &Xattrs,
    ) -> Result<()> {
        self.set_metadata(file, name, ownership, xattrs)?;
        rustix::fs::futimens(file, &times(mtime))
            .map_err(|error| failure("set the time of", &self.cursor.path_of(name), error))
    }

    /// Sets an open file's owner, then its attributes (a change of owner drops capabilities), then its mode. Returns
    /// the resulting ownership.
    fn set_metadata(
        &mut self,
        file: BorrowedFd<'_>,
        name: &[u8],
        wanted: Ownership,
        xattrs: &Xattrs,
    ) -> Result<Ownership> {
        let failed = |tree: &Tree, what, error| failure(what, &tree.cursor.path_of(name), error);
        let mut given = wanted;
        match fchown(file, Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid))) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::INVAL) if self.mode == Mode::Plain => {
                let path = self.cursor.path_of(name);
                self.report.lose(path, Loss::Owner { uid: wanted.uid, gid: wanted.gid });
                let stat = fstat(file).map_err(|error| failed(self, "read", error))?;
                given = Ownership { mode: wanted.mode & !0o6000, ..Ownership::of(&stat) };
                // A directory's bits run nothing.
                if !name.is_empty() {
                    let path = self.cursor.path_of(name);
                    self.report.set_id(self.mode, path, wanted.mode, given.mode);
                }
            }
            Err(error) => return Err(failed(self, "set the owner of", error)),
        }
        for (attribute, value) in xattrs {
            let set = rustix::fs::fsetxattr(file, &**attribute, value, XattrFlags::empty());
            self.check_xattr(set, file, name, attribute)?;
        }
        fchmod(file, Permissions::from_raw_mode(given.mode))
            .map_err(|error| failed(self, "set the mode of", error))?;
        Ok(given)
    }

    pub(super) fn make_fifo(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        self.make(name, |dir, name| {
            mknodat(dir, name, FileType::Fifo, Permissions::from_raw_mode(0o600), 0)
        })?;
        // For reading and writing, so that opening a fifo does not block.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fifo = openat(self.cursor.dir(), name, flags, Permissions::empty())
            .map_err(|error| failure("open", &self.cursor.path_of(name), error))?;
        self.file_metadata(fifo.as_fd(), name, entry, Xattrs::new())
    }

    pub(super) fn make_symlink(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        check_symlink_target(&entry.link)?;
        self.make(name, |dir, name| symlinkat(&*entry.link, dir, name))?;
        self.link_metadata(name, entry)
    }

    /// Sets the metadata of files that can't be opened: links and devices.
    fn link_metadata(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let (mut given, xattrs) = self.representable(name, entry, Xattrs::new());
        let (uid, gid) = (Uid::from_raw(given.uid), Gid::from_raw(given.gid));
        match chownat(self.cursor.dir(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::INVAL) if self.mode == Mode::Plain => {
                let path = self.cursor.path_of(name);
                self.report.lose(path, Loss::Owner { uid: given.uid, gid: given.gid });
                given.mode &= !0o6000;
            }
            Err(error) => {
                return Err(failure("set the owner of", &self.cursor.path_of(name), error));
            }
        }
        if !xattrs.is_empty() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(self.cursor.dir(), name, flags, Permissions::empty())
                .map_err(|error| failure("open", &self.cursor.path_of(name), error))?;
            for (attribute, value) in &xattrs {
                let path = meta::proc_path(file.as_fd());
                let set = rustix::fs::setxattr(path, &**attribute, value, XattrFlags::empty());
                self.check_xattr(set, file.as_fd(), name, attribute)?;
            }
        }
        if entry.kind != EntryKind::Symlink {
            // No other process could have replaced the new file with a link.
            let mode = Permissions::from_raw_mode(given.mode);
            rustix::fs::chmodat(self.cursor.dir(), name, mode, AtFlags::empty())
                .map_err(|error| failure("set the mode of", &self.cursor.path_of(name), error))?;
        }
        utimensat(self.cursor.dir(), name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failure("set the time of", &self.cursor.path_of(name), error))
    }

    fn make_device(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let (major, minor) = (entry.major, entry.minor);
        if self.mode == Mode::Overlay {
            let file = self.create_file(name)?;
            let record = meta::node_record(entry.kind, major, minor);
            let records = Xattrs::from([(NODE.to_vec(), record)]);
            return self.file_metadata(file.as_fd(), name, entry, records);
        }
        let kind = match entry.kind {
            EntryKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::CharacterDevice,
        };
        let number = rustix::fs::makedev(major, minor);
        self.remove_existing(name)?;
        match mknodat(self.cursor.dir(), name, kind, Permissions::from_raw_mode(0o600), number) {
            Ok(()) => self.link_metadata(name, entry),
            Err(Errno::PERM) => {
                let path = self.cursor.path_of(name);
                self.report.lose(path, Loss::Device { major, minor });
                Ok(())
            }
            Err(error) => Err(failure("create", &self.cursor.path_of(name), error)),
        }
    }

    /// Writes a file's content, with long runs of zeros as holes.
    fn fill(
        &mut self,
        file: &File,
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<'_>,
    ) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let filled = write_sparse(file, &mut buffer, |buf| reader.read_content(buf));
        self.buffer = buffer;
        let size = filled.map_err(|error| match error {
            Fill::Read(error) => error,
            Fill::Write(error) => {
                Error::io("write", crate::layer::path::show(&self.cursor.path_of(name)), error)
            }
        })?;
        debug_assert_eq!(size, entry.size);
        Ok(())
    }

    /// Copies `from` to `to`, with long runs of zeros as holes.
    pub(super) fn copy_content(&mut self, from: &File, to: &File, path: &[u8]) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = |buf: &mut [u8]| {
            std::io::Read::read(&mut &*from, buf)
                .map_err(|error| Error::io("read", crate::layer::path::show(path), error))
        };
        let filled = write_sparse(to, &mut buffer, read);
        self.buffer = buffer;
        filled.map(drop).map_err(|error| match error {
            Fill::Read(error) => error,
            Fill::Write(error) => Error::io("write", crate::layer::path::show(path), error),
        })
    }
}

enum Fill {
    Read(Error),
    Write(std::io::Error),
}

/// Writes the data from `read` to the empty `file`; returns the number of bytes.
fn write_sparse(
    file: &File,
    buffer: &mut [u8],
    mut read: impl FnMut(&mut [u8]) -> Result<usize>,
) -> Result<u64, Fill> {
    debug_assert_eq!(buffer.len() % HOLE, 0);
    let (mut written, mut at) = (0, 0);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match read(&mut buffer[filled..]).map_err(Fill::Read)? {
                0 => break,
                n => filled += n,
            }
        }
        let mut start = 0;
        for piece in (0..filled).step_by(HOLE) {
            let end = (piece + HOLE).min(filled);
            if end - piece == HOLE && buffer[piece..end].iter().all(|&byte| byte == 0) {
                file.write_all_at(&buffer[start..piece], at + start as u64).map_err(Fill::Write)?;
                start = end;
            }
        }
        if start < filled {
            file.write_all_at(&buffer[start..filled], at + start as u64).map_err(Fill::Write)?;
            written = at + filled as u64;
        }
        at += filled as u64;
        if filled < buffer.len() {
            break;
        }
    }
    if written < at {
        file.set_len(at).map_err(Fill::Write)?;
    }
    Ok(at)
}
