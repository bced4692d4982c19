//! One entry of a layer, as plain data.

use std::collections::BTreeMap;

/// Extended attributes: name to value, both bytes.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A time, as tar and the kernel have it.
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
    /// Nanoseconds after that, below 10^9.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file, with content.
    File,
    /// Another name of an earlier entry: [`Entry::link`].
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

/// An entry's metadata. The content of a file comes beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive has it: any bytes, a directory's with or without a slash behind it.
    pub path: Vec<u8>,
    /// What it is.
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
    /// Bytes of content; 0 for all but files.
    pub size: u64,
}

impl Entry {
    /// An entry owned by root, of time 0, with nothing in it.
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
