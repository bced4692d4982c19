//! Whiteouts, written: the entry of a new layer that says that a file of the layers below is gone.

use crate::layer::entry::{Entry, EntryKind};
use crate::layer::path::whiteout_of;

/// The entry that removes the file at `names`, with its time in seconds; the root can't be removed.
pub(super) fn entry(names: &[&[u8]], mtime: i64) -> Option<Entry> {
    let (name, parents) = names.split_last()?;
    let mut path = parents.join(&b'/');
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(&whiteout_of(name));
    let mut entry = Entry::new(path, EntryKind::File, 0);
    entry.mtime.seconds = mtime;
    Some(entry)
}
