//! What the store tells of its images: lists and inspections, as data.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use super::{Store, parallel};
use crate::error::Result;
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::{Descriptor, Digest, Platform, Reference};

/// One line of `svp images`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// `[REGISTRY/]REPOSITORY`.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// When the image was made, as RFC 3339, if it says.
    pub created: Option<String>,
    /// The sum of the layers' sizes as stored, in bytes; `None` if the manifest is missing or damaged.
    pub size: Option<u64>,
}

/// All that `svp inspect` tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// All tags that stand for it, sorted.
    pub tags: Vec<String>,
    /// When it was made, as RFC 3339, if it says.
    pub created: Option<String>,
    /// What it runs on.
    pub platform: Platform,
    /// The sum of the layers' sizes as stored, in bytes.
    pub size: u64,
    /// The layers, the lowest first.
    pub layers: Vec<InspectedLayer>,
    /// The digest of the config.
    pub config_digest: Digest,
    /// The config, whole.
    pub config: Value,
}

/// One layer of an [`Inspection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedLayer {
    /// The digest of the blob.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// One of the two documents of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// What points at the config and the layers.
    Manifest,
    /// What the image is and how it runs.
    Config,
}

impl Store {
    /// All tags, sorted by name.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's file is damaged.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let records = self.tags()?.collect::<Result<Vec<_>>>()?;
        let mut seen = HashSet::new();
        let distinct: Vec<&Descriptor> =
            records.iter().map(|r| &r.manifest).filter(|m| seen.insert(m.digest)).collect();
        let sizes = parallel::map(&distinct, |manifest| self.layers_size(manifest));
        let sizes: HashMap<Digest, Option<u64>> =
            distinct.iter().map(|manifest| manifest.digest).zip(sizes).collect();
        let mut list = Vec::with_capacity(records.len());
        for record in records {
            let reference = record.reference()?;
            list.push(Listed {
                repository: reference.name(),
                tag: reference.tag_or_latest().to_owned(),
                digest: record.manifest.digest,
                size: sizes[&record.manifest.digest],
                created: record.created,
            });
        }
        list.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)));
        Ok(list)
    }

    /// The sum of the layers' sizes as stored, in bytes; `None` if the manifest is missing or damaged.
    fn layers_size(&self, descriptor: &Descriptor) -> Option<u64> {
        let manifest = self.load_manifest(descriptor).ok()?;
        Some(manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add))
    }

    /// The bytes of an image's manifest, or of its config, as they are stored.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such image, or it is damaged.
    pub fn document(&self, reference: &Reference, which: Document) -> Result<Vec<u8>> {
        let record = self.resolve(reference)?;
        match which {
            Document::Manifest => self.read_blob_bounded(&record.manifest.digest, MAX_MANIFEST),
            Document::Config => {
                let manifest = self.load_manifest(&record.manifest)?;
                self.read_blob_bounded(&manifest.config.digest, MAX_CONFIG)
            }
        }
    }

    /// All that there is to tell of the image that `reference` names.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is none, or it is damaged.
    pub fn inspect(&self, reference: &Reference) -> Result<Inspection> {
        let record = self.resolve(reference)?;
        let manifest = self.load_manifest(&record.manifest)?;
        let image = self.load_image(&record.manifest)?;
        let mut tags = Vec::new();
        for other in self.tags()? {
            let other = other?;
            if other.manifest.digest == record.manifest.digest {
                tags.push(other.name);
            }
        }
        tags.sort();
        let layers = manifest.layers.iter().zip(image.layers());
        let layers = layers.map(|(stored, layer)| InspectedLayer {
            digest: stored.digest,
            media_type: stored.media_type.clone(),
            size: stored.size,
            diff_id: layer.diff_id,
        });
        Ok(Inspection {
            digest: record.manifest.digest,
            media_type: record.manifest.media_type.clone(),
            tags,
            created: image.config().created().map(str::to_owned),
            platform: image.config().platform(),
            size: image.size(),
            layers: layers.collect(),
            config_digest: manifest.config.digest,
            config: Value::Object(image.config().as_json().clone()),
        })
    }
}
