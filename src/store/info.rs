//! Lists and inspects the images of the store, as data.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use super::{Store, parallel};
use crate::error::Result;
use crate::oci::json::{MAX_CONFIG, MAX_MANIFEST};
use crate::oci::media_type::MediaType;
use crate::oci::{self, Descriptor, Digest, Manifest, Platform, Reference};

/// One line of `svp images`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedImage {
    /// `[REGISTRY/]REPOSITORY`.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// Creation time of the image, as RFC 3339, if recorded.
    pub created: Option<String>,
    /// The platforms: several for an index, none if unknown.
    pub platforms: Vec<Platform>,
    /// Sum of the stored layer sizes in bytes, over all platforms; `None` if a manifest is missing or damaged.
    pub size: Option<u64>,
}

/// The output of `svp inspect`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: MediaType,
    /// All tags of the image or its index, sorted.
    pub tags: Vec<String>,
    /// The index that the name refers to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<InspectedIndex>,
    /// Creation time, as RFC 3339, if recorded.
    pub created: Option<String>,
    /// The platform.
    pub platform: Platform,
    /// Sum of the stored layer sizes, in bytes.
    pub size: u64,
    /// The layers, lowest first.
    pub layers: Vec<InspectedLayer>,
    /// The digest of the config.
    pub config_digest: Digest,
    /// The whole config.
    pub config: Value,
}

/// The index of an [`Inspection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedIndex {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its entries, in order: images and attached documents.
    pub manifests: Vec<Descriptor>,
}

/// One layer of an [`Inspection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedLayer {
    /// The digest of the blob.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// One of the two documents of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// The manifest, which references config and layers.
    Manifest,
    /// The config, which describes the image and how it runs.
    Config,
}

impl Store {
    /// Lists all tags, sorted by name.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a tag's file is damaged.
    pub fn list(&self) -> Result<Vec<ListedImage>> {
        let records = self.tags()?.collect::<Result<Vec<_>>>()?;
        let mut seen = HashSet::new();
        let distinct: Vec<&Descriptor> =
            records.iter().map(|r| &r.manifest).filter(|m| seen.insert(m.digest)).collect();
        let known = parallel::map(&distinct, |manifest| self.platforms_and_size(manifest).ok());
        let known: HashMap<Digest, Option<(Vec<Platform>, u64)>> =
            distinct.iter().map(|manifest| manifest.digest).zip(known).collect();
        let mut list = Vec::with_capacity(records.len());
        for record in records {
            let reference = record.reference()?;
            let known = known[&record.manifest.digest].clone();
            list.push(ListedImage {
                repository: reference.name(),
                tag: reference.tag_or_latest().to_owned(),
                digest: record.manifest.digest,
                created: record.created,
                size: known.as_ref().map(|(_, size)| *size),
                platforms: known.map(|(platforms, _)| platforms).unwrap_or_default(),
            });
        }
        list.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)));
        Ok(list)
    }

    /// Returns the platforms of an image or index, and the sum of the stored sizes of its distinct layers, in bytes.
    fn platforms_and_size(&self, descriptor: &Descriptor) -> Result<(Vec<Platform>, u64)> {
        let mut layers: HashMap<Digest, u64> = HashMap::new();
        let mut add = |manifest: Manifest| {
            layers.extend(manifest.layers.iter().map(|layer| (layer.digest, layer.size)));
        };
        let platforms = match self.load_document(descriptor)? {
            oci::Document::Manifest(manifest) => {
                add(manifest);
                descriptor.platform.iter().cloned().collect()
            }
            oci::Document::Index(index) => {
                for image in index.images().filter(|image| self.has_blob(&image.digest)) {
                    add(self.load_manifest(image)?);
                }
                index.images().filter_map(|image| image.platform.clone()).collect()
            }
        };
        Ok((platforms, layers.values().copied().fold(0, u64::saturating_add)))
    }

    /// Returns the stored bytes of an image's manifest or config. `platform` chooses the image of an index; without
    /// it the manifest is the index itself, and the config that of the image for this machine.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the image is missing or damaged.
    pub fn document(
        &self,
        reference: &Reference,
        which: Document,
        platform: Option<&Platform>,
    ) -> Result<Vec<u8>> {
        let named = self.resolve(reference)?.manifest;
        let chosen = platform.map_or_else(|| Ok(named.clone()), |p| self.choose(&named, p))?;
        match which {
            Document::Manifest => self.read_blob_bounded(&chosen.digest, MAX_MANIFEST),
            Document::Config => {
                let manifest = self.load_manifest(&chosen)?;
                self.read_blob_bounded(&manifest.config.digest, MAX_CONFIG)
            }
        }
    }

    /// Inspects the image `reference`; for an index, its image for `platform`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the image is missing or damaged.
    pub fn inspect(&self, reference: &Reference, platform: &Platform) -> Result<Inspection> {
        let record = self.resolve(reference)?;
        let chosen = self.choose(&record.manifest, platform)?;
        let manifest = self.load_manifest(&chosen)?;
        let image = self.load_image(&chosen)?;
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
            digest: chosen.digest,
            media_type: chosen.media_type,
            tags,
            index: self.inspect_index(&record.manifest)?,
            created: image.config().created().map(str::to_owned),
            platform: image.config().platform(),
            size: image.size(),
            layers: layers.collect(),
            config_digest: manifest.config.digest,
            config: Value::Object(image.config().as_json().clone()),
        })
    }

    fn inspect_index(&self, descriptor: &Descriptor) -> Result<Option<InspectedIndex>> {
        Ok(match self.load_document(descriptor)? {
            oci::Document::Manifest(_) => None,
            oci::Document::Index(index) => Some(InspectedIndex {
                digest: descriptor.digest,
                media_type: descriptor.media_type.clone(),
                manifests: index.manifests,
            }),
        })
    }
}
