//! Caches verified diff IDs, the digests of uncompressed layers, by blob.

use std::fs;

use super::Store;
use crate::error::{IoContext, Result};
use crate::oci::Digest;

impl Store {
    /// Returns the cached diff ID of the blob `layer`; `None` if there is none.
    pub fn noted_diff_id(&self, layer: &Digest) -> Option<Digest> {
        let text = fs::read_to_string(self.layout.diff_id(layer)).ok()?;
        text.parse().ok()
    }

    /// Caches the diff ID that was computed from the blob `layer`.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn note_diff_id(&self, layer: &Digest, diff_id: &Digest) -> Result<()> {
        let path = self.layout.diff_id(layer);
        // No temporary file: a write of this size is atomic, and a lost diff ID is computed again.
        fs::write(&path, diff_id.to_string()).io("write", &path)
    }

    pub(super) fn forget_diff_id(&self, layer: &Digest) {
        // Best effort: a later command removes the rest.
        let _ = fs::remove_file(self.layout.diff_id(layer));
    }
}
