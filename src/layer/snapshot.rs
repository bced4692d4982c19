//! Reads a whole tree as data, and compares two of them.
//!
//! Deliberately slow and simple: it reads everything, so that tests can judge the diff of an overlay. Interprets svp's
//! records of owners and devices.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};

use crate::error::{IoContext, Result};
use crate::layer::entry::{Entry, EntryKind, Timestamp, Xattrs};
use crate::layer::meta;
use crate::layer::path::show;
use crate::layer::unpack::tree::failure;
use crate::oci::{Digest, DigestReader};
use crate::rootfs::{self, Cursor};

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its metadata as a layer would have it; a hard link appears as the file that it refers to.
    pub entry: Entry,
    /// The digest of a file's content.
    pub content: Option<Digest>,
    /// Device and inode number, which identify hard links.
    pub inode: (u64, u64),
    /// The ctime, which no copy can preserve.
    pub ctime: Timestamp,
}

impl Node {
    /// Returns whether both have the same metadata (except the path) and content.
    pub fn is_same(&self, other: &Self) -> bool {
        let without_path = |entry: &Entry| Entry { path: Vec::new(), ..entry.clone() };
        without_path(&self.entry) == without_path(&other.entry) && self.content == other.content
    }
}

/// A tree: every path below the root, which is the empty path. Sockets are skipped.
pub type Snapshot = BTreeMap<Vec<u8>, Node>;

/// Reads the tree below `root`: a mounted overlay or a plain directory.
///
/// # Errors
/// `Storage` if something can't be read.
pub fn take(root: BorrowedFd<'_>) -> Result<Snapshot> {
    let mut cursor = Cursor::new(root).map_err(|error| failure("open", b"", error))?;
    let mut snapshot = Snapshot::new();
    let mut frames = vec![enter(&cursor, &mut snapshot)?];
    while let Some(names) = frames.last_mut() {
        let Some(name) = names.pop() else {
            frames.pop();
            cursor.pop().map_err(|error| failure("open", b"", error))?;
            continue;
        };
        if name.kind == FileType::Directory {
            cursor.push(&name.bytes).map_err(|error| failure("open", &name.bytes, error))?;
            frames.push(enter(&cursor, &mut snapshot)?);
        } else if name.kind != FileType::Socket {
            let path = cursor.path_of(&name.bytes);
            let node = file(cursor.dir(), &name.bytes, &path)?;
            snapshot.insert(path, node);
        }
    }
    Ok(snapshot)
}

/// Records the current directory of the cursor, and lists it in reverse.
fn enter(cursor: &Cursor, snapshot: &mut Snapshot) -> Result<Vec<rootfs::Name>> {
    let path = cursor.path_of(b"");
    let failed = |error| failure("read", &path, error);
    let stat = fstat(cursor.dir()).map_err(failed)?;
    let xattrs = meta::read_xattrs(cursor.dir()).map_err(failed)?;
    let mut names = rootfs::list(cursor.dir()).map_err(failed)?;
    names.reverse();
    snapshot.insert(path.clone(), node(&path, EntryKind::Directory, &stat, xattrs));
    Ok(names)
}

fn file(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Node> {
    let failed = |error| failure("read", path, error);
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::BlockDevice => EntryKind::BlockDevice,
        _ => EntryKind::CharDevice,
    };
    if kind != EntryKind::File {
        let xattrs = meta::read_xattrs_at(dir, name, kind).map_err(failed)?;
        let mut node = node(path, kind, &stat, xattrs);
        if kind == EntryKind::Symlink {
            node.entry.link = readlinkat(dir, name, Vec::new()).map_err(failed)?.into_bytes();
        }
        return Ok(node);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty()).map_err(failed)?;
    let xattrs = meta::read_xattrs(file.as_fd()).map_err(failed)?;
    let mut node = node(path, kind, &stat, xattrs);
    if node.entry.kind == EntryKind::File {
        node.content = Some(digest(File::from(file), path)?);
    }
    Ok(node)
}

fn digest(file: File, path: &[u8]) -> Result<Digest> {
    DigestReader::new(file).drain().map(|(digest, _)| digest).io("read", show(path))
}

fn node(path: &[u8], kind: EntryKind, stat: &Stat, mut xattrs: Xattrs) -> Node {
    xattrs.retain(|name, _| meta::is_portable(name));
    let entry = meta::entry(path, kind, stat, xattrs);
    let inode = (stat.st_dev, stat.st_ino);
    Node { entry, content: None, inode, ctime: meta::ctime(stat) }
}

/// A difference at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// Both have it, with different metadata or content.
    Changed,
    /// It is a hard link to another path in only one of the trees.
    Linked {
        /// The other path.
        with: Vec<u8>,
        /// Whether that is the second tree.
        now: bool,
    },
}

/// Returns the differences between the trees, by path.
pub fn compare(before: &Snapshot, after: &Snapshot) -> Vec<(Vec<u8>, Difference)> {
    let paths: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    let (before_links, after_links) = (links(before), links(after));
    let mut differences = Vec::new();
    for path in paths {
        let difference = match (before.get(path), after.get(path)) {
            (None, _) => Some(Difference::Added),
            (_, None) => Some(Difference::Removed),
            (Some(a), Some(b)) => (!a.is_same(b)).then_some(Difference::Changed),
        };
        if let Some(difference) = difference {
            differences.push((path.clone(), difference));
        }
        for (links, others, now) in
            [(&before_links, &after_links, false), (&after_links, &before_links, true)]
        {
            if let Some(with) = links.get(path)
                && others.get(path) != Some(with)
            {
                differences.push((path.clone(), Difference::Linked { with: with.to_vec(), now }));
            }
        }
    }
    differences
}

/// Returns the first name of each file, for each further name.
fn links(snapshot: &Snapshot) -> HashMap<&Vec<u8>, &Vec<u8>> {
    let mut first = HashMap::new();
    let mut links = HashMap::new();
    for (path, node) in snapshot {
        if node.entry.kind == EntryKind::Directory {
            continue;
        }
        let first = *first.entry(node.inode).or_insert(path);
        if first != path {
            links.insert(path, first);
        }
    }
    links
}
