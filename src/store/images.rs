//! Images in the store: manifest and config, verified on every read.

use super::Store;
use crate::error::{Context, Result};
use crate::oci::image::{Encoded, parse_manifest};
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::{Descriptor, Document, Image, Index, Manifest, Platform, Reference};

impl Store {
    /// Loads the image with the manifest `descriptor`; for an index, the image for this machine.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if manifest or config is missing, damaged or not of an
    /// image.
    pub fn load_image(&self, descriptor: &Descriptor) -> Result<Image> {
        let load = || {
            let manifest = self.load_manifest(descriptor)?;
            let config = self.read_blob_bounded(&manifest.config.digest, MAX_CONFIG)?;
            Image::from_parts(&manifest, &config)
        };
        load().context(format!("image {}", descriptor.digest))
    }

    /// Loads the manifest `descriptor`; for an index, the manifest for this machine.
    ///
    /// # Errors
    /// As [`Store::load_image`].
    pub fn load_manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let bytes = self.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
        match Document::parse(&bytes, descriptor.media_type.as_ref())? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(index) => {
                let chosen = self.stored_entries(index).select(&Platform::host())?.clone();
                let bytes = self.read_blob_bounded(&chosen.digest, MAX_MANIFEST)?;
                parse_manifest(&bytes, chosen.media_type.as_ref())
            }
        }
    }

    /// Loads the manifest or index `descriptor`.
    ///
    /// # Errors
    /// As [`Store::load_image`].
    pub fn load_document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
        Document::parse(&bytes, descriptor.media_type.as_ref())
    }

    /// Chooses the image for `platform` among those that the store has, if `descriptor` is an index; else returns it.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput), listing the available platforms, if none matches; as
    /// [`Store::load_image`].
    pub fn choose(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Descriptor> {
        match self.load_document(descriptor)? {
            Document::Manifest(_) => Ok(descriptor.clone()),
            Document::Index(index) => self.stored_entries(index).select(platform).cloned(),
        }
    }

    /// Lists the images of an index that the store has, or `descriptor` itself if it is an image.
    ///
    /// # Errors
    /// As [`Store::load_image`].
    pub fn images_of(&self, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
        Ok(match self.load_document(descriptor)? {
            Document::Manifest(_) => vec![descriptor.clone()],
            Document::Index(index) => self.stored_entries(index).manifests,
        })
    }

    /// Reduces an index to the entries that the store has.
    fn stored_entries(&self, index: Index) -> Index {
        Index::new(index.images().filter(|image| self.has_blob(&image.digest)).cloned().collect())
    }

    /// Writes an image's config and manifest; its layers must exist.
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
