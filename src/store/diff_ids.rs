//! Notes of verified diff IDs: what the blob of a layer is uncompressed, so that it is worked out once.

use std::fs;

use super::Store;
use crate::error::{IoContext, Result};
use crate::oci::Digest;

impl Store {
    /// The diff ID that was once computed from the blob `layer`; `None` if none was.
    pub fn noted_diff_id(&self, layer: &Digest) -> Option<Digest> {
        let text = fs::read_to_string(self.root.join("diff-ids").join(layer.hex())).ok()?;
        text.parse().ok()
    }

    /// Notes the diff ID that was computed from the blob `layer`.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn note_diff_id(&self, layer: &Digest, diff_id: &Digest) -> Result<()> {
        let path = self.root.join("diff-ids").join(layer.hex());
        // Whole or not at all by its size; if it is lost, it is worked out again.
        fs::write(&path, diff_id.to_string()).io("write", &path)
    }

    pub(super) fn forget_diff_id(&self, layer: &Digest) {
        let _ = fs::remove_file(self.root.join("diff-ids").join(layer.hex()));
    }
}
