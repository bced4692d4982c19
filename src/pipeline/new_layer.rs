//! New layers, to be appended to an image.

use crate::error::Result;
use crate::oci::config::{History, timestamp};
use crate::oci::{Descriptor, Digest, Image};
use crate::store::BlobWriter;

/// A layer whose blob is written but is not in the store yet. Dropping it discards the blob.
pub(super) struct NewLayer {
    pub(super) writer: BlobWriter,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

impl NewLayer {
    /// Adds the layer to the store and to the image. `created` is in seconds since 1970.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage); [`Kind::Usage`](crate::error::Kind::Usage) if the
    /// time is out of range.
    pub(super) fn put_on(self, image: &mut Image, created_by: String, created: i64) -> Result<()> {
        let history =
            History { created: Some(timestamp(created)?), created_by, ..History::default() };
        self.writer.adopt_verified(self.descriptor.digest, self.descriptor.size)?;
        image.append_layer(self.descriptor, self.diff_id, &history)
    }
}
