//! A file of a file tree: its metadata, type and content.

use std::io::{self, Write};

use crate::error::Result;
use crate::interrupt;
use crate::layer::entry::{Entry, EntryKind, Timestamp, Xattrs};
use crate::layer::path::check_symlink_target;
use crate::layer::read::TarReader;
use crate::layer::unpack::{Mode, attributes};
use crate::oci::{Digest, DigestWriter};

/// A file's metadata, type and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Type and content.
    pub kind: FileKind,
    /// Permissions; 0o777 for a symbolic link.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The mtime.
    pub mtime: Timestamp,
    /// Extended attributes, except those that a layer can't set.
    pub xattrs: Option<Box<Xattrs>>,
}

/// A file's type, with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// Digest of the content.
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

/// Creates the inode of an entry of the given kind.
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

/// Reads the type of an entry that is neither a directory nor a hard link, and digests a file's content.
pub(super) fn read_kind(entry: &Entry, reader: &mut TarReader<'_>) -> Result<FileKind> {
    Ok(match entry.kind {
        EntryKind::Symlink => {
            check_symlink_target(&entry.link)?;
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
                    n => hash.write_all(&buffer[..n]).expect("hashing can't fail"),
                }
                interrupt::check()?;
            }
            let (_, digest, size) = hash.finish();
            FileKind::File { size, digest }
        }
    })
}

/// Returns the approximate memory use of the attributes, in bytes.
pub(super) fn memory_size(inode: &Inode) -> u64 {
    let xattrs = inode.xattrs.iter().flat_map(|xattrs| xattrs.iter());
    xattrs.map(|(name, value)| (name.len() + value.len()) as u64 + 100).sum()
}
