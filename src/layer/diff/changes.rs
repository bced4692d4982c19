//! Finds the changes in an overlay's upper directory: the first half of a diff.
//!
//! The upper directory contains every file that was opened for writing, changed or not, and represents removals by
//! whiteouts and opaque directories. Each of its files is compared with the merged view of the layers below.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};
use crate::layer::compress::read_full;
use crate::layer::entry::{EntryKind, Timestamp, Xattrs};
use crate::layer::meta::{self, OPAQUE, Ownership};
use crate::layer::path::{is_reserved, show, whiteout_of};
use crate::layer::unpack::tree::{failure, is_whiteout};
use crate::rootfs::{self, Cursor};

/// The representation of a changed name in the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A directory with its metadata.
    Directory,
    /// Any other file.
    File,
    /// A file with several names: the number of its group.
    Linked(u32),
    /// A removed name.
    Whiteout,
}

/// A name that changed, or may turn out to belong to a changed file.
pub(super) struct Item {
    /// The item of its parent directory; the root's is its own.
    pub parent: u32,
    pub name: Box<[u8]>,
    pub change: Change,
    /// Whether it is written to the layer.
    pub emit: bool,
}

/// The names of one file with hard links.
struct Group {
    changed: bool,
    /// The lower file that the unchanged names refer to.
    below: Option<(u64, u64)>,
}

/// The changes: parents before children, siblings sorted by their names in the layer.
pub(super) struct Changes {
    pub items: Vec<Item>,
    /// Paths of sockets, which a layer can't contain.
    pub sockets: Vec<Vec<u8>>,
    /// Number of sockets; not all are listed.
    pub socket_count: u64,
}

/// The maximum number of listed sockets.
const MOST_LISTED: usize = 1000;

impl Changes {
    /// Returns the names from the root to an item.
    pub(super) fn names(&self, index: usize) -> Vec<&[u8]> {
        let mut names = Vec::new();
        let mut at = index;
        while at != 0 {
            names.push(&*self.items[at].name);
            at = self.items[at].parent as usize;
        }
        names.reverse();
        names
    }
}

/// A directory being walked.
struct Frame {
    /// Its names, and whether each is in the upper directory.
    names: std::vec::IntoIter<(Box<[u8]>, bool)>,
    item: u32,
    /// Whether the directory exists in the layers below.
    below: bool,
    /// Whether it hides the lower directory completely.
    opaque: bool,
}

struct Walk {
    upper: Cursor,
    before: Cursor,
    started: Timestamp,
    changes: Changes,
    groups: Vec<Group>,
    by_inode: HashMap<(u64, u64), u32>,
    frames: Vec<Frame>,
    buffers: [Vec<u8>; 2],
}

/// Finds the changes; see [`crate::layer::diff`].
pub(super) fn find(
    upper: BorrowedFd<'_>,
    before: BorrowedFd<'_>,
    started: Timestamp,
) -> Result<Changes> {
    let mut walk = Walk {
        upper: Cursor::new(upper).map_err(|error| failure("open", b"", error))?,
        before: Cursor::new(before).map_err(|error| failure("open", b"", error))?,
        started,
        changes: Changes { items: Vec::new(), sockets: Vec::new(), socket_count: 0 },
        groups: Vec::new(),
        by_inode: HashMap::new(),
        frames: Vec::new(),
        buffers: [vec![0; 64 * 1024], vec![0; 64 * 1024]],
    };
    walk.enter(0, Box::default(), true, false)?;
    while let Some(frame) = walk.frames.last_mut() {
        match frame.names.next() {
            Some((name, in_upper)) => walk.visit(name, in_upper)?,
            None => walk.leave()?,
        }
    }
    Ok(walk.finish())
}

impl Walk {
    fn failed(&self, what: &str, name: &[u8], error: Errno) -> Error {
        failure(what, &self.upper.path_of(name), error)
    }

    /// Enters the current directory of both cursors (of `before` only if `below`).
    fn enter(&mut self, parent: u32, name: Box<[u8]>, below: bool, opaque: bool) -> Result<()> {
        let failed = |walk: &Self, error| walk.failed("read", b"", error);
        let raw = meta::read_xattrs(self.upper.dir()).map_err(|error| failed(self, error))?;
        self.refuse_redirected(b"", &raw)?;
        let opaque = opaque || raw.get(OPAQUE).is_some_and(|value| value == b"y");
        let changed = if below {
            let stat = fstat(self.upper.dir()).map_err(|error| failed(self, error))?;
            let old = fstat(self.before.dir()).map_err(|error| failed(self, error))?;
            let shown =
                meta::read_xattrs(self.before.dir()).map_err(|error| failed(self, error))?;
            !self.is_incidental(&stat, &old)
                || meant(&stat, comparable_upper(raw)) != meant(&old, comparable(shown))
        } else {
            true
        };
        let item = self.changes.items.len() as u32;
        self.keep(Item { parent, name, change: Change::Directory, emit: changed })?;
        let names = self.names(below && opaque).map_err(|error| failed(self, error))?;
        self.frames.push(Frame { names: names.into_iter(), item, below, opaque });
        Ok(())
    }

    /// Returns whether a directory's mtime is insignificant: creating and removing a temporary file in it changes the
    /// mtime, without leaving another trace. A time set on purpose is earlier than the start, or later than the ctime.
    fn is_incidental(&self, stat: &Stat, old: &Stat) -> bool {
        let mtime = meta::mtime(stat);
        mtime == meta::mtime(old) || (self.started <= mtime && mtime <= meta::ctime(stat))
    }

    /// Returns the names to visit, sorted as in the layer, and whether each is in the upper directory.
    fn names(&self, with_below: bool) -> Result<Vec<(Box<[u8]>, bool)>, Errno> {
        let mut names: Vec<(Vec<u8>, Box<[u8]>, bool)> = Vec::new();
        let upper = rootfs::list(self.upper.dir())?;
        if with_below {
            for name in rootfs::list(self.before.dir())? {
                let there = upper.binary_search_by(|other| other.bytes.cmp(&name.bytes)).is_ok();
                if !there {
                    names.push((whiteout_of(&name.bytes), name.bytes, false));
                }
            }
        }
        for name in upper {
            // Scripts can't create character devices, so these are whiteouts.
            let key = match name.kind {
                FileType::CharacterDevice => whiteout_of(&name.bytes),
                _ => name.bytes.to_vec(),
            };
            names.push((key, name.bytes, true));
        }
        names.sort_unstable();
        Ok(names.into_iter().map(|(_, name, in_upper)| (name, in_upper)).collect())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let popped = self.upper.pop().map_err(|error| self.failed("open", b"", error))?;
        if frame.below {
            self.before.pop().map_err(|error| self.failed("open", b"", error))?;
        }
        let last = self.changes.items.len() - 1;
        if popped.is_some() && last == frame.item as usize && !self.changes.items[last].emit {
            self.changes.items.pop();
        }
        Ok(())
    }

    fn visit(&mut self, name: Box<[u8]>, in_upper: bool) -> Result<()> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (parent, opaque) = (frame.item, frame.opaque);
        let old = match frame.below {
            false => None,
            true => match statat(self.before.dir(), &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(self.failed("read", &name, error)),
            },
        };
        if !in_upper {
            return self.keep(Item { parent, name, change: Change::Whiteout, emit: true });
        }
        let stat = statat(self.upper.dir(), &*name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.failed("read", &name, error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            self.changes.socket_count += 1;
            if self.changes.sockets.len() < MOST_LISTED {
                self.changes.sockets.push(self.upper.path_of(&name));
            }
        }
        if kind == FileType::Socket || is_whiteout(&stat) {
            return match old {
                Some(_) => self.keep(Item { parent, name, change: Change::Whiteout, emit: true }),
                None => Ok(()),
            };
        }
        if kind == FileType::Directory {
            let below = old.is_some_and(|old| old.st_mode & 0o170_000 == stat.st_mode & 0o170_000);
            self.upper.push(&name).map_err(|error| self.failed("open", &name, error))?;
            if below {
                self.before.push(&name).map_err(|error| self.failed("open", b"", error))?;
            }
            return self.enter(parent, name, below, opaque);
        }
        let same = match &old {
            Some(old) => self.is_same(&name, &stat, old)?,
            None => false,
        };
        if stat.st_nlink > 1 {
            let group = self.group(&stat, old.filter(|_| same));
            return self.keep(Item { parent, name, change: Change::Linked(group), emit: !same });
        }
        if same {
            Ok(())
        } else {
            self.keep(Item { parent, name, change: Change::File, emit: true })
        }
    }

    fn keep(&mut self, item: Item) -> Result<()> {
        if item.emit && is_reserved(&item.name) {
            // For a directory, the walk has entered it already.
            let mut names = self.changes.names(item.parent as usize);
            names.push(&item.name);
            let path = show(&names.join(&b'/'));
            return Err(Error::bad_input(format!(
                "{path} can't be put into an image: names that begin with \".wh.\" mean removals"
            ))
            .hint("rename it in the script, or remove it"));
        }
        if self.changes.items.len() >= u32::MAX as usize {
            return Err(Error::bad_input("the layer would have more than four billion entries"));
        }
        self.changes.items.push(item);
        Ok(())
    }

    /// Returns the group of a file with several names. `same` is the unchanged lower file, if any.
    fn group(&mut self, stat: &Stat, same: Option<Stat>) -> u32 {
        let below = same.map(|stat| (stat.st_dev, stat.st_ino));
        match self.by_inode.entry((stat.st_dev, stat.st_ino)) {
            Slot::Vacant(slot) => {
                let number = self.groups.len() as u32;
                slot.insert(number);
                self.groups.push(Group { changed: below.is_none(), below });
                number
            }
            Slot::Occupied(slot) => {
                let group = &mut self.groups[*slot.get() as usize];
                // Names of different lower files became names of one.
                group.changed |= below.is_none() || group.below != below;
                *slot.get()
            }
        }
    }

    /// Returns whether a file equals the lower one: it was copied up, then left unchanged or changed back.
    fn is_same(&mut self, name: &[u8], stat: &Stat, old: &Stat) -> Result<bool> {
        let type_of = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
        if type_of(stat) != type_of(old) || meta::mtime(stat) != meta::mtime(old) {
            return Ok(false);
        }
        let failed = |walk: &Self, error| walk.failed("read", name, error);
        let kind = match type_of(stat) {
            FileType::RegularFile if stat.st_size != old.st_size => return Ok(false),
            FileType::RegularFile => EntryKind::File,
            FileType::Fifo => EntryKind::Fifo,
            FileType::Symlink => {
                let target = readlinkat(self.upper.dir(), name, Vec::new());
                let other = readlinkat(self.before.dir(), name, Vec::new());
                if target.map_err(|error| failed(self, error))?
                    != other.map_err(|error| failed(self, error))?
                {
                    return Ok(false);
                }
                EntryKind::Symlink
            }
            _ if stat.st_rdev != old.st_rdev => return Ok(false),
            _ => EntryKind::CharDevice,
        };
        let raw = meta::read_xattrs_at(self.upper.dir(), name, kind)
            .map_err(|error| failed(self, error))?;
        self.refuse_redirected(name, &raw)?;
        let shown = meta::read_xattrs_at(self.before.dir(), name, kind)
            .map_err(|error| failed(self, error))?;
        if meant(stat, comparable_upper(raw)) != meant(old, comparable(shown)) {
            return Ok(false);
        }
        if kind == EntryKind::File { self.same_content(name) } else { Ok(true) }
    }

    fn same_content(&mut self, name: &[u8]) -> Result<bool> {
        let open = |dir| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(dir, name, flags, Mode::empty()).map(File::from)
        };
        let path = || show(&self.upper.path_of(name));
        let mut files = [self.upper.dir(), self.before.dir()].map(open);
        let [Ok(new), Ok(old)] = &mut files else {
            return files
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .io("open", path())
                .map(|_| false);
        };
        let [a, b] = &mut self.buffers;
        loop {
            let read = read_full(new as &mut dyn Read, a).io("read", show(name))?;
            let other = read_full(old as &mut dyn Read, b).io("read", show(name))?;
            if a[..read] != b[..other] {
                return Ok(false);
            }
            if read == 0 {
                return Ok(true);
            }
        }
    }

    /// Refuses redirects and metadata-only copies. svp's mounts allow neither; a diff that ignored them would
    /// lose files.
    fn refuse_redirected(&self, name: &[u8], raw: &Xattrs) -> Result<()> {
        for private in [&b"user.overlay.redirect"[..], b"user.overlay.metacopy"] {
            if raw.contains_key(private) {
                let path = show(&self.upper.path_of(name));
                let private = String::from_utf8_lossy(private);
                return Err(Error::sandbox(format!(
                    "the overlay holds {path} only in part ({private})"
                ))
                .hint("the overlay must be mounted with redirect_dir=nofollow and metacopy=off"));
            }
        }
        Ok(())
    }

    /// Marks all names of changed files, and all parent directories of entries in the layer; the root only if it
    /// changed itself.
    fn finish(mut self) -> Changes {
        let items = &mut self.changes.items;
        for index in (1..items.len()).rev() {
            if let Change::Linked(group) = items[index].change {
                items[index].emit = self.groups[group as usize].changed;
            }
            let parent = items[index].parent as usize;
            if items[index].emit && parent != 0 {
                items[parent].emit = true;
            }
        }
        self.changes
    }
}

/// Returns the significant attributes of a file in the upper directory.
pub(super) fn comparable_upper(raw: Xattrs) -> Xattrs {
    let named = raw.into_iter().filter_map(|(name, value)| Some((meta::unescape(&name)?, value)));
    comparable(named.collect())
}

/// Returns the significant attributes, including svp's records.
fn comparable(mut xattrs: Xattrs) -> Xattrs {
    xattrs.retain(|name, _| meta::is_portable(name));
    xattrs
}

/// Returns the intended ownership and attributes: resolves svp's record of an owner, keeps that of a device.
fn meant(stat: &Stat, mut xattrs: Xattrs) -> (Ownership, Xattrs) {
    let found = Ownership::of(stat);
    let record = xattrs.remove(meta::OWNER);
    (record.map_or(found, |record| found.meant(&record)), xattrs)
}
