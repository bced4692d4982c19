//! Options and report of unpacking a layer.

use std::os::fd::BorrowedFd;

use crate::layer::meta::IdRanges;

/// The purpose of the unpacked tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The root is an empty directory that becomes a lower directory of an overlay mounted with `userxattr`: whiteouts
    /// become devices 0:0, opaque directories get `user.overlay.opaque`, and files that can't be created become
    /// stand-ins with records (see [`crate::layer::meta`]).
    Overlay,
    /// The root is a tree to which layers are applied in order: whiteouts remove files. Files that can't be created are
    /// skipped and reported.
    Plain,
}

/// Options of unpacking.
#[derive(Clone, Debug)]
pub struct UnpackOptions<'a> {
    /// The purpose.
    pub mode: Mode,
    /// The ids that files can be given.
    pub ids: IdRanges,
    /// With [`Mode::Overlay`], the merged view of all lower layers, from which hard link targets and the metadata of
    /// directories that the layer does not mention are copied.
    pub lower: Option<BorrowedFd<'a>>,
    /// Whether files lose their setuid and setgid bits, because the tree is on the host, where they would let its other
    /// users run programs as the owner.
    pub drop_set_id: bool,
}

/// The reason why a file differs from the layer's entry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Loss {
    /// A device that the caller may not create.
    Device {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// An owner that the caller may not set; setuid and setgid are dropped too.
    Owner {
        /// The intended owner.
        uid: u32,
        /// The intended group.
        gid: u32,
    },
    /// A setuid or setgid bit ([`UnpackOptions::drop_set_id`]).
    SetId {
        /// The intended mode.
        mode: u32,
    },
    /// Capabilities, which the kernel has bound to the caller's user namespaces ([`UnpackOptions::drop_set_id`]).
    Capability,
    /// An extended attribute that the caller may not set or the file system can't store.
    Xattr {
        /// Its name.
        name: String,
    },
}

/// A file that differs from the layer's entry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unmade {
    /// The path in the layer, as bytes.
    pub path: Vec<u8>,
    /// The difference.
    pub loss: Loss,
}

/// Metadata of a symbolic link or fifo that can't be recorded on the file ([`Mode::Overlay`]).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unrepresented {
    /// The path in the layer, as bytes.
    pub path: Vec<u8>,
    /// The intended owner.
    pub uid: u32,
    /// The intended group.
    pub gid: u32,
}

/// The maximum number of [`Unmade`] and of [`Unrepresented`] listed in a report.
const MOST_LISTED: usize = 1000;

/// The result of unpacking a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UnpackReport {
    /// Number of entries in the layer.
    pub entries: u64,
    /// Total size of their content, in bytes.
    pub bytes: u64,
    /// Files that differ from the layer's entries: the first thousand.
    pub unmade: Vec<Unmade>,
    /// Number of files that differ.
    pub unmade_count: u64,
    /// Whether a file got a setuid or setgid bit.
    pub set_id: bool,
    /// Files whose metadata could not be recorded: the first thousand.
    pub unrepresented: Vec<Unrepresented>,
}

impl UnpackReport {
    pub(in crate::layer) fn lose(&mut self, path: Vec<u8>, loss: Loss) {
        self.unmade_count += 1;
        if self.unmade.len() < MOST_LISTED {
            self.unmade.push(Unmade { path, loss });
        }
    }

    /// Records that a file meant to have the setuid or setgid bits of `meant` gets those of `given`. Overlays have a record
    /// of bits that belong to other ids.
    pub(in crate::layer) fn set_id(&mut self, mode: Mode, path: Vec<u8>, meant: u32, given: u32) {
        self.set_id |= given & 0o6000 != 0;
        if mode == Mode::Plain && given & 0o6000 != meant & 0o6000 {
            self.lose(path, Loss::SetId { mode: meant });
        }
    }

    pub(in crate::layer) fn not_represented(&mut self, what: Unrepresented) {
        if self.unrepresented.len() < MOST_LISTED {
            self.unrepresented.push(what);
        }
    }
}
