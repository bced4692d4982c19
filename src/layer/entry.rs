//! A layer entry, as plain data.

use std::collections::BTreeMap;

/// Extended attributes: name to value, both bytes.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A timestamp, as in tar and in the kernel.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970, rounded down; may be negative.
    pub seconds: i64,
    /// Nanoseconds within that second, below 10^9.
    pub nanoseconds: u32,
}

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file, with content.
    File,
    /// A hard link to an earlier entry, [`Entry::link`].
    HardLink,
    /// A symbolic link to [`Entry::link`].
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A fifo.
    Fifo,
}

/// An entry's metadata. A file's content is passed separately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path in the archive: any bytes, for a directory with or without a trailing slash.
    pub path: Vec<u8>,
    /// The type.
    pub kind: EntryKind,
    /// Permissions with setuid, setgid and sticky: at most 0o7777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of last modification.
    pub mtime: Timestamp,
    /// Extended attributes, under their real names.
    pub xattrs: Xattrs,
    /// The target of a symbolic link (any bytes) or of a hard link (a path in the layer); else empty.
    pub link: Vec<u8>,
    /// A device's major number, else 0.
    pub major: u32,
    /// A device's minor number, else 0.
    pub minor: u32,
    /// Size of the content in bytes; 0 for all but regular files.
    pub size: u64,
}

impl Entry {
    /// Creates an empty entry owned by root, with mtime 0.
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Self {
        Entry {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Xattrs::new(),
            link: Vec::new(),
            major: 0,
            minor: 0,
            size: 0,
        }
    }
}
