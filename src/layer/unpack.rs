//! Unpacks one layer into a directory.
//!
//! Walks every path name by name from the root's descriptor and resolves symbolic links itself, inside the root, so
//! that no entry can reach anything outside. Applies entries in order, later ones replacing earlier ones of the same
//! path; whiteouts hide only the lower layers' files, regardless of their position in the layer.
//! docs/decisions/002-unpack.md has the reasons.

mod entry;
mod hard_link;
mod report;
pub(super) mod tree;
pub(super) mod whiteout;
mod xattr;

use std::io::Read;
use std::os::fd::BorrowedFd;

pub use report::{Loss, Mode, Unmade, UnpackOptions, UnpackReport, Unrepresented};

use crate::error::{Context, Error, Result};
use crate::layer::entry::{Entry, EntryKind, Xattrs};
use crate::layer::meta::IdRanges;
use crate::layer::path::{EntryName, EntryPath, show, split_entry};
use crate::layer::read::TarReader;
use crate::layer::unpack::tree::Tree;

/// Unpacks the layer in `tar` into the directory `root`, and reads `tar` to its end, so that a digest computed on the
/// way covers all of it.
///
/// Needs the capabilities of root over the given ids, which the root of a user namespace has; in [`Mode::Plain`] it
/// does as much as it may without them.
///
/// # Errors
/// `BadInput` for a layer that is damaged or has a forbidden entry, which the message names. `Storage` if the disk is
/// full or fails. The root then contains part of the layer.
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

/// The error for an entry of the root that is not a directory.
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

/// Copies owner, mode, extended attributes and time from the directory `from` to the directory `to`, such as to an
/// overlay's upper directory from the merged lower root, which it hides.
///
/// # Errors
/// `Storage` if the kernel refuses.
pub fn copy_directory_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let options = UnpackOptions {
        mode: Mode::Overlay,
        ids: IdRanges::all(),
        lower: Some(from),
        drop_set_id: false,
    };
    Tree::new(to, &options)?.finish().map(drop)
}

/// Returns an entry's attributes in their on-disk form; never svp's private ones from a layer.
pub(super) fn attributes(entry: &Entry, mode: Mode) -> Xattrs {
    use crate::layer::meta::{OWN_PREFIX, escape};
    let wanted = entry.xattrs.iter().filter(|(name, _)| {
        !name.starts_with(OWN_PREFIX) && name.as_slice() != b"security.selinux"
    });
    let on_disk = |name: &Vec<u8>| if mode == Mode::Overlay { escape(name) } else { name.clone() };
    wanted.map(|(name, value)| (on_disk(name), value.clone())).collect()
}
