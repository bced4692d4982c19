//! One file of an index: its metadata, and what it is.

use std::io::{self, Write};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::layer::entry::{Entry, EntryKind, Timestamp, Xattrs};
use crate::layer::read::TarReader;
use crate::layer::unpack::{Mode, attributes};
use crate::oci::{Digest, DigestWriter};

/// A file's metadata, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is, with its content.
    pub kind: FileKind,
    /// Permissions; of a link, 0o777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of last modification.
    pub mtime: Timestamp,
    /// Extended attributes, but for those that no layer can set.
    pub xattrs: Option<Box<Xattrs>>,
}

/// What a file is, with what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File {
        /// Bytes in it.
        size: u64,
        /// The digest of them.
        digest: Digest,
    },
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(Box<[u8]>),
    /// A character device, with its major and minor number.
    CharDevice(u32, u32),
    /// A block device, with its major and minor number.
    BlockDevice(u32, u32),
    /// A fifo.
    Fifo,
}

/// What an index holds of an entry that is `what`.
pub(super) fn inode_of(entry: &Entry, kind: FileKind) -> Inode {
    let xattrs = attributes(entry, Mode::Plain);
    Inode {
        mode: if matches!(kind, FileKind::Symlink(_)) { 0o777 } else { entry.mode },
        kind,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
    }
}

/// What an entry is that is neither directory nor hard link; a file's content is read.
pub(super) fn read_kind(entry: &Entry, reader: &mut TarReader<'_>) -> Result<FileKind> {
    Ok(match entry.kind {
        EntryKind::Symlink => {
            if entry.link.is_empty() || entry.link.len() >= 4096 || entry.link.contains(&0) {
                return Err(Error::bad_input("its target is no path"));
            }
            FileKind::Symlink(entry.link.as_slice().into())
        }
        EntryKind::CharDevice => FileKind::CharDevice(entry.major, entry.minor),
        EntryKind::BlockDevice => FileKind::BlockDevice(entry.major, entry.minor),
        EntryKind::Fifo => FileKind::Fifo,
        _ => {
            let mut hash = DigestWriter::new(io::sink());
            let mut buffer = [0; 32 << 10];
            loop {
                match reader.read_content(&mut buffer)? {
                    0 => break,
                    n => hash.write_all(&buffer[..n]).expect("a sink takes all"),
                }
                interrupt::check()?;
            }
            let (_, digest, size) = hash.finish();
            FileKind::File { size, digest }
        }
    })
}

/// About what the attributes take in memory, in bytes.
pub(super) fn memory_size(inode: &Inode) -> u64 {
    let xattrs = inode.xattrs.iter().flat_map(|xattrs| xattrs.iter());
    xattrs.map(|(name, value)| (name.len() + value.len()) as u64 + 100).sum()
}
