//! What the tags reach: everything else in the store is for a collection.

use std::collections::HashSet;

use super::{Store, TagRecord};
use crate::error::{Error, Result};
use crate::oci::image::chain_ids;
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::{Config, Descriptor, Digest, Document, Manifest};

/// What tags reach.
#[derive(Debug, Default)]
pub struct Reach {
    /// The blobs: indexes, manifests, configs and layers.
    pub blobs: HashSet<Digest>,
    /// Those of them that are configs.
    pub configs: HashSet<Digest>,
    /// The chain IDs of all layers.
    pub chain_ids: HashSet<Digest>,
    /// The images that can't be read, each with its tag and why. What they reach isn't known.
    pub damaged: Vec<(String, Error)>,
}

impl Reach {
    /// This, if it is all that the tags reach.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) that names the first damaged image.
    pub fn whole(mut self) -> Result<Reach> {
        if self.damaged.is_empty() {
            return Ok(self);
        }
        let (tag, error) = self.damaged.swap_remove(0);
        Err(error
            .context(format!("the image {tag} is damaged, so nothing is removed"))
            .hint(format!("pull or build it again, or remove it with `svp rmi {tag}`")))
    }
}

impl Store {
    /// What all tags reach.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's file is damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn reach(&self) -> Result<Reach> {
        let mut reach = Reach::default();
        for record in self.tags()? {
            let TagRecord { name, manifest, .. } = record?;
            if let Err(error) = self.reach_from(&manifest, &mut reach, true) {
                reach.damaged.push((name, error));
            }
        }
        Ok(reach)
    }

    /// What one image or index reaches.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is damaged.
    pub fn reach_of(&self, descriptor: &Descriptor) -> Result<Reach> {
        let mut reach = Reach::default();
        self.reach_from(descriptor, &mut reach, true).map(|()| reach)
    }

    /// Adds what `descriptor` reaches. Of an index's images those that the store lacks are no damage: it
    /// may have been pulled for one platform.
    fn reach_from(&self, descriptor: &Descriptor, reach: &mut Reach, top: bool) -> Result<()> {
        if !reach.blobs.insert(descriptor.digest) {
            return Ok(());
        }
        let bytes = self.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
        match Document::parse(&bytes, &descriptor.media_type)? {
            Document::Manifest(manifest) => self.reach_image(&manifest, reach),
            Document::Index(index) if top => index
                .manifests
                .iter()
                .filter(|manifest| self.has_blob(&manifest.digest))
                .try_for_each(|manifest| self.reach_from(manifest, reach, false)),
            Document::Index(_) => Err(Error::bad_input("an index in an index")),
        }
    }

    fn reach_image(&self, manifest: &Manifest, reach: &mut Reach) -> Result<()> {
        reach.blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
        reach.blobs.insert(manifest.config.digest);
        if reach.configs.insert(manifest.config.digest) {
            let config = self.read_blob_bounded(&manifest.config.digest, MAX_CONFIG)?;
            reach.chain_ids.extend(chain_ids(Config::parse(&config)?.diff_ids()?));
        }
        Ok(())
    }
}
