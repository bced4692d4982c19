//! Images in the store: their two documents, verified whenever they are read.

use super::Store;
use crate::error::{Context, Result};
use crate::oci::image::{Encoded, parse_manifest};
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::{Descriptor, Image, Manifest, Reference};

impl Store {
    /// The image whose manifest is `descriptor`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if manifest or config is missing, damaged or no
    /// image's.
    pub fn load_image(&self, descriptor: &Descriptor) -> Result<Image> {
        let load = || {
            let manifest = self.load_manifest(descriptor)?;
            let config = self.read_blob_bounded(&manifest.config.digest, MAX_CONFIG)?;
            Image::from_parts(&manifest, &config)
        };
        load().context(format!("image {}", descriptor.digest))
    }

    /// The manifest that `descriptor` points at.
    ///
    /// # Errors
    /// As [`Store::load_image`].
    pub fn load_manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let bytes = self.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
        parse_manifest(&bytes, &descriptor.media_type)
    }

    /// Writes an image's config and manifest; its layers must be there.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage); [`Kind::BadInput`](crate::error::Kind::BadInput)
    /// if a layer is missing.
    pub fn write_image(&self, image: &Image) -> Result<Descriptor> {
        for layer in image.layers() {
            self.open_blob(&layer.descriptor.digest)?;
        }
        let Encoded { config, manifest, descriptor, .. } = image.encode();
        self.put_blob(&config)?;
        self.put_blob(&manifest)?;
        Ok(descriptor)
    }

    /// Writes an image and tags it.
    ///
    /// # Errors
    /// As [`Store::write_image`] and [`Store::set_tag`].
    pub fn insert_image(&self, image: &Image, reference: &Reference) -> Result<Descriptor> {
        let descriptor = self.write_image(image)?;
        self.set_tag(reference, &descriptor, image.config().created())?;
        Ok(descriptor)
    }
}
