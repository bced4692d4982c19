//! Layers on their way: an image's to be unpacked, and new ones to be put on an image.

use crate::error::Result;
use crate::oci::config::{History, timestamp};
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, Image};
use crate::sandbox::LayerSource;
use crate::store::{BlobWriter, Store};

/// The layers of an image of the store, the lowest first, to be unpacked.
pub fn layer_sources(store: &Store, image: &Image) -> impl Iterator<Item = Result<LayerSource>> {
    image.layers().iter().zip(image.chain_ids()).map(|(layer, chain_id)| {
        let descriptor = &layer.descriptor;
        Ok(LayerSource {
            blob: store.open_blob(&descriptor.digest)?,
            digest: descriptor.digest,
            size: descriptor.size,
            compression: Compression::of_layer(&descriptor.media_type)?,
            diff_id: layer.diff_id,
            chain_id,
        })
    })
}

/// A layer whose blob is written but is not in the store yet; dropped, it is gone.
pub(super) struct NewLayer {
    pub(super) writer: BlobWriter,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

impl NewLayer {
    /// Puts the layer into the store and on the image. `created` is in seconds since 1970.
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
