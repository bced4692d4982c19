//! Caches what was verified of a layer's blob, by its digest: all of it depends on the blob's bytes alone.

use std::fs;

use super::Store;
use crate::error::{IoContext, Result};
use crate::oci::Digest;

/// The second word of a record: the layer can be unpacked on any layers.
const ALONE: &str = "alone";
/// The second word of a record: the layer has hard links to files of lower layers.
const LINKED: &str = "linked";

/// What was verified of a layer's blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerNote {
    /// The digest of the uncompressed tar, decompressed as the blob's first bytes say.
    pub diff_id: Digest,
    /// Whether the layer can be unpacked only on lower layers that have the targets of its hard links.
    pub needs_lower: bool,
    /// The chain ID of lower layers that have them, the last ones that were found to.
    pub below: Option<Digest>,
}

impl Store {
    /// Returns what is cached of the blob `layer`; `None` if nothing is, or if an earlier version of svp cached it,
    /// which verified less.
    pub fn layer_note(&self, layer: &Digest) -> Option<LayerNote> {
        let text = fs::read_to_string(self.layout.diff_id(layer)).ok()?;
        let mut words = text.split_ascii_whitespace();
        let diff_id = words.next()?.parse().ok()?;
        let needs_lower = match words.next()? {
            ALONE => false,
            LINKED => true,
            _ => return None,
        };
        let below = words.next().and_then(|chain_id| chain_id.parse().ok());
        Some(LayerNote { diff_id, needs_lower, below })
    }

    /// Returns the cached diff ID of the blob `layer`, also if an earlier version of svp cached it.
    pub fn noted_diff_id(&self, layer: &Digest) -> Option<Digest> {
        let text = fs::read_to_string(self.layout.diff_id(layer)).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    }

    /// Caches what was verified of the blob `layer`.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn note_layer(&self, layer: &Digest, note: &LayerNote) -> Result<()> {
        let path = self.layout.diff_id(layer);
        let mut text =
            format!("{} {}", note.diff_id, if note.needs_lower { LINKED } else { ALONE });
        if let Some(chain_id) = note.below {
            text = format!("{text} {chain_id}");
        }
        // No temporary file: a write of this size is atomic, and a lost record is computed again.
        fs::write(&path, text).io("write", &path)
    }

    /// Forgets what was verified of the blob `layer`.
    pub(crate) fn forget_layer_note(&self, layer: &Digest) {
        // Best effort: a later command removes the rest.
        let _ = fs::remove_file(self.layout.diff_id(layer));
    }
}
