//! Unpacks one layer into a directory.
//!
//! Every path is walked name by name from the root's descriptor, and a symbolic link on the way is
//! resolved here, inside the root: nothing that a layer holds can name anything outside. Entries are
//! applied in order, a later one replacing an earlier one of the same path; whiteouts only ever hide what
//! lower layers have, wherever in the layer they come. docs/decisions/002-unpack.md has the reasons.

mod entry;
mod hard_link;
pub(super) mod tree;
pub(super) mod whiteout;

use std::io::Read;
use std::os::fd::BorrowedFd;

use crate::error::{Context, Error, Result};
use crate::layer::entry::{Entry, EntryKind, Xattrs};
use crate::layer::meta::IdRanges;
use crate::layer::path::{EntryName, EntryPath, show, split_entry};
use crate::layer::read::TarReader;
use crate::layer::unpack::tree::Tree;

/// What the unpacked files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The root is an empty directory that becomes a lower directory of an overlay mounted with
    /// `userxattr`: whiteouts become devices 0:0, opaque directories get `user.overlay.opaque`, and what
    /// can't be made gets a stand-in with a record (see [`crate::layer::meta`]).
    Overlay,
    /// The root is a tree that the layer is applied onto, lower layers first: whiteouts remove. What can't
    /// be made is left out and listed.
    Plain,
}

/// How to unpack.
#[derive(Clone, Debug)]
pub struct UnpackOptions<'a> {
    /// What for.
    pub mode: Mode,
    /// The ids that files can be given to.
    pub ids: IdRanges,
    /// With [`Mode::Overlay`], the merged view of all lower layers: hard links into them are copied from
    /// there, and directories that the layer doesn't mention get their metadata from there.
    pub lower: Option<BorrowedFd<'a>>,
}

/// Why something is not as the layer has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Loss {
    /// A device that the caller may not make.
    Device {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// An owner that the caller may not give; setuid and setgid were left off with it.
    Owner {
        /// The owner meant.
        uid: u32,
        /// The group meant.
        gid: u32,
    },
    /// An extended attribute that the caller may not set or the file system can't hold.
    Xattr {
        /// Its name.
        name: String,
    },
}

/// Something that is not as the layer has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unmade {
    /// The path in the layer, its bytes.
    pub path: Vec<u8>,
    /// What is missing.
    pub loss: Loss,
}

/// Metadata of a symbolic link or fifo that no record on the file could hold ([`Mode::Overlay`]).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unrepresented {
    /// The path in the layer, its bytes.
    pub path: Vec<u8>,
    /// The owner meant.
    pub uid: u32,
    /// The group meant.
    pub gid: u32,
}

/// The most [`Unmade`] and [`Unrepresented`] that a report lists.
const MOST_LISTED: usize = 1000;

/// What unpacking a layer did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UnpackReport {
    /// Entries in the layer.
    pub entries: u64,
    /// Bytes of content in them.
    pub bytes: u64,
    /// What is not as the layer has it, the first thousand.
    pub unmade: Vec<Unmade>,
    /// How many there are in all.
    pub unmade_count: u64,
    /// What no record on the file could hold, the first thousand.
    pub unrepresented: Vec<Unrepresented>,
}

impl UnpackReport {
    pub(super) fn lose(&mut self, path: Vec<u8>, loss: Loss) {
        self.unmade_count += 1;
        if self.unmade.len() < MOST_LISTED {
            self.unmade.push(Unmade { path, loss });
        }
    }

    pub(super) fn not_represented(&mut self, what: Unrepresented) {
        if self.unrepresented.len() < MOST_LISTED {
            self.unrepresented.push(what);
        }
    }
}

/// Unpacks the layer that `tar` streams into the directory `root`, and reads `tar` to its end, so that a
/// digest computed on the way covers all of it.
///
/// Needs the capabilities of root over the ids given, as the root of a user namespace has them; in
/// [`Mode::Plain`] it does what it may without them.
///
/// # Errors
/// `BadInput` for a layer that is damaged or asks for what no layer may: the message names the entry.
/// `Storage` if the disk is full or fails. The root then holds a part of the layer.
pub fn unpack_layer(
    tar: &mut dyn Read,
    root: BorrowedFd<'_>,
    options: &UnpackOptions<'_>,
) -> Result<UnpackReport> {
    let mut tree = Tree::new(root, options)?;
    let mut reader = TarReader::new(tar);
    while let Some(entry) = reader.next_entry()? {
        apply(&mut tree, &entry, &mut reader)
            .context(format_args!("can't unpack {}", show(&entry.path)))?;
    }
    reader.drain()?;
    tree.finish()
}

/// The error for an entry of the root that is something else.
pub(super) const NO_ROOT: &str = "the root of an image can only be a directory";

fn apply(tree: &mut Tree, entry: &Entry, reader: &mut TarReader<'_>) -> Result<()> {
    tree.report.entries += 1;
    tree.report.bytes += entry.size;
    let path = EntryPath::parse(&entry.path)?;
    if path.is_root() {
        if entry.kind != EntryKind::Directory {
            return Err(Error::bad_input(NO_ROOT));
        }
        tree.ascend(0)?;
        return tree.directory_metadata(entry);
    }
    let Some((parents, name, kind)) = split_entry(&path)? else { return Ok(()) };
    tree.go_to_parent(&parents)?;
    match kind {
        EntryName::Opaque => tree.apply_opaque_whiteout(),
        EntryName::Whiteout(hidden) => tree.apply_whiteout(hidden),
        _ => tree.write_entry(name, entry, reader),
    }
}

/// Gives the directory `to` the owner, mode, extended attributes and time of the directory `from`, such
/// as an overlay's upper directory those of the merged lower root, which it hides.
///
/// # Errors
/// `Storage` if the kernel refuses.
pub fn copy_directory_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let options = UnpackOptions { mode: Mode::Overlay, ids: IdRanges::all(), lower: Some(from) };
    Tree::new(to, &options)?.finish().map(drop)
}

/// Attributes of an entry in the form that goes onto the disk: svp's own names never come from a layer.
pub(super) fn attributes(entry: &Entry, mode: Mode) -> Xattrs {
    use crate::layer::meta::{OWN_PREFIX, escape};
    let wanted = entry.xattrs.iter().filter(|(name, _)| {
        !name.starts_with(OWN_PREFIX) && name.as_slice() != b"security.selinux"
    });
    let on_disk = |name: &Vec<u8>| if mode == Mode::Overlay { escape(name) } else { name.clone() };
    wanted.map(|(name, value)| (on_disk(name), value.clone())).collect()
}
