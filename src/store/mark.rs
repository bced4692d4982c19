//! The mark phase of garbage collection: finds the blobs and layers that the roots reach.

use std::collections::HashSet;

use super::gc_roots::GcRoot;
use super::{RootOwner, Store, parallel};
use crate::error::{Error, Result};
use crate::oci::image::chain_ids;
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::{Config, Descriptor, Digest, Document, Manifest};

/// The depth of marking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Down to the blobs: without reading configs, so chain IDs stay unknown.
    Blobs,
    /// Down to the chain IDs of the layers.
    Layers,
}

/// The blobs and layers reached.
#[derive(Debug, Default)]
pub struct Marked {
    /// Blobs: indexes, manifests, configs and layers.
    pub blobs: HashSet<Digest>,
    /// The configs among them.
    pub configs: HashSet<Digest>,
    /// Chain IDs of all layers.
    pub chain_ids: HashSet<Digest>,
    /// Unreadable images, each with its owner and the error. Their blobs are unknown.
    pub damaged: Vec<(RootOwner, Error)>,
}

impl Marked {
    /// Returns the marks if they are complete.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) that names the first damaged image.
    pub fn whole(mut self) -> Result<Marked> {
        if self.damaged.is_empty() {
            return Ok(self);
        }
        let (owner, error) = self.damaged.swap_remove(0);
        let remove = match &owner {
            RootOwner::Tag(name) => format!("remove it with `svp rmi {name}`"),
            RootOwner::Service(name) => format!("remove the service with `svp rm --force {name}`"),
        };
        Err(error
            .context(format!("{owner} is damaged, so nothing is removed"))
            .hint(format!("pull or build it again, or {remove}")))
    }
}

impl Store {
    /// Marks everything that tags and services reach.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's file is damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn mark(&self) -> Result<Marked> {
        let gc_roots = self.gc_roots()?;
        Ok(self.mark_roots(&gc_roots, Depth::Layers))
    }

    /// Marks everything that these roots reach.
    pub(super) fn mark_roots(&self, gc_roots: &[GcRoot], depth: Depth) -> Marked {
        let mut seen = HashSet::new();
        let distinct: Vec<_> =
            gc_roots.iter().filter(|root| seen.insert(root.manifest.digest)).collect();
        let results = parallel::map(&distinct, |root| self.mark_from_top(&root.manifest, depth));
        let mut all = Marked::default();
        for (root, (marked, result)) in distinct.iter().zip(results) {
            all.blobs.extend(marked.blobs);
            all.configs.extend(marked.configs);
            all.chain_ids.extend(marked.chain_ids);
            all.damaged.extend(result.err().map(|error| (root.owner.clone(), error)));
        }
        all
    }

    /// Marks everything that one image or index reaches.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the image is damaged.
    pub fn mark_image(&self, descriptor: &Descriptor) -> Result<Marked> {
        let (marked, result) = self.mark_from_top(descriptor, Depth::Layers);
        result.map(|()| marked)
    }

    /// Marks everything that one image or index reaches, as far as it is readable; returns the error that stopped it.
    pub(super) fn mark_from_top(
        &self,
        descriptor: &Descriptor,
        depth: Depth,
    ) -> (Marked, Result<()>) {
        let mut marked = Marked::default();
        let result = self.mark_from(descriptor, &mut marked, depth, true);
        (marked, result)
    }

    /// Marks everything that `descriptor` reaches. Missing images of an index are not damage: it may have been
    /// pulled for one platform.
    fn mark_from(
        &self,
        descriptor: &Descriptor,
        marked: &mut Marked,
        depth: Depth,
        top: bool,
    ) -> Result<()> {
        if !marked.blobs.insert(descriptor.digest) {
            return Ok(());
        }
        let bytes = self.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
        match Document::parse(&bytes, descriptor.media_type.as_ref())? {
            Document::Manifest(manifest) => self.mark_manifest(&manifest, marked, depth),
            Document::Index(index) if top => index
                .manifests
                .iter()
                .filter(|manifest| self.has_blob(&manifest.digest))
                .try_for_each(|manifest| self.mark_from(manifest, marked, depth, false)),
            Document::Index(_) => Err(Error::bad_input("nested index")),
        }
    }

    fn mark_manifest(&self, manifest: &Manifest, marked: &mut Marked, depth: Depth) -> Result<()> {
        marked.blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
        marked.blobs.insert(manifest.config.digest);
        if marked.configs.insert(manifest.config.digest) && depth == Depth::Layers {
            let config = self.read_blob_bounded(&manifest.config.digest, MAX_CONFIG)?;
            marked.chain_ids.extend(chain_ids(Config::parse(&config)?.diff_ids()?));
        }
        Ok(())
    }
}
