//! What the tags reach: everything else in the store is for a collection.

use std::collections::HashSet;

use super::pins::Root;
use super::{Holder, Store, parallel};
use crate::error::{Error, Result};
use crate::oci::image::chain_ids;
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::{Config, Descriptor, Digest, Document, Manifest};

/// How far a reach goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// To the blobs: configs are not read, and chain IDs not known.
    Blobs,
    /// To the chain IDs of the layers.
    Layers,
}

/// What tags reach.
#[derive(Debug, Default)]
pub struct Reach {
    /// The blobs: indexes, manifests, configs and layers.
    pub blobs: HashSet<Digest>,
    /// Those of them that are configs.
    pub configs: HashSet<Digest>,
    /// The chain IDs of all layers.
    pub chain_ids: HashSet<Digest>,
    /// The images that can't be read, each with what holds it and why. What they reach isn't known.
    pub damaged: Vec<(Holder, Error)>,
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
        let (holder, error) = self.damaged.swap_remove(0);
        let remove = match &holder {
            Holder::Tag(name) => format!("remove it with `svp rmi {name}`"),
            Holder::Service(name) => format!("remove the service with `svp rm {name}`"),
        };
        Err(error
            .context(format!("{holder} is damaged, so nothing is removed"))
            .hint(format!("pull or build it again, or {remove}")))
    }
}

impl Store {
    /// What all tags and services reach.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's file is damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn reach(&self) -> Result<Reach> {
        let roots = self.roots()?;
        Ok(self.reach_of_roots(&roots, Depth::Layers))
    }

    /// What these roots reach.
    pub(super) fn reach_of_roots(&self, roots: &[Root], depth: Depth) -> Reach {
        let mut seen = HashSet::new();
        let distinct: Vec<_> =
            roots.iter().filter(|root| seen.insert(root.manifest.digest)).collect();
        let reached = parallel::map(&distinct, |root| self.reach_from_top(&root.manifest, depth));
        let mut all = Reach::default();
        for (root, (reach, result)) in distinct.iter().zip(reached) {
            all.blobs.extend(reach.blobs);
            all.configs.extend(reach.configs);
            all.chain_ids.extend(reach.chain_ids);
            all.damaged.extend(result.err().map(|error| (root.holder.clone(), error)));
        }
        all
    }

    /// What one image or index reaches.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is damaged.
    pub fn reach_of(&self, descriptor: &Descriptor) -> Result<Reach> {
        let (reach, result) = self.reach_from_top(descriptor, Depth::Layers);
        result.map(|()| reach)
    }

    /// What one image or index reaches, as far as it can be read, and why it can't further.
    pub(super) fn reach_from_top(
        &self,
        descriptor: &Descriptor,
        depth: Depth,
    ) -> (Reach, Result<()>) {
        let mut reach = Reach::default();
        let result = self.reach_from(descriptor, &mut reach, depth, true);
        (reach, result)
    }

    /// Adds what `descriptor` reaches. Of an index's images those that the store lacks are no damage: it
    /// may have been pulled for one platform.
    fn reach_from(
        &self,
        descriptor: &Descriptor,
        reach: &mut Reach,
        depth: Depth,
        top: bool,
    ) -> Result<()> {
        if !reach.blobs.insert(descriptor.digest) {
            return Ok(());
        }
        let bytes = self.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
        match Document::parse(&bytes, &descriptor.media_type)? {
            Document::Manifest(manifest) => self.reach_image(&manifest, reach, depth),
            Document::Index(index) if top => index
                .manifests
                .iter()
                .filter(|manifest| self.has_blob(&manifest.digest))
                .try_for_each(|manifest| self.reach_from(manifest, reach, depth, false)),
            Document::Index(_) => Err(Error::bad_input("an index in an index")),
        }
    }

    fn reach_image(&self, manifest: &Manifest, reach: &mut Reach, depth: Depth) -> Result<()> {
        reach.blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
        reach.blobs.insert(manifest.config.digest);
        if reach.configs.insert(manifest.config.digest) && depth == Depth::Layers {
            let config = self.read_blob_bounded(&manifest.config.digest, MAX_CONFIG)?;
            reach.chain_ids.extend(chain_ids(Config::parse(&config)?.diff_ids()?));
        }
        Ok(())
    }
}
