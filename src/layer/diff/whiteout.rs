//! Creates whiteouts: the entries of a new layer that remove files of lower layers.

use crate::layer::entry::{Entry, EntryKind};
use crate::layer::path::whiteout_of;

/// Returns the whiteout of the file at `names`, with its time in seconds; `None` for the root.
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
