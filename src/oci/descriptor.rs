//! Descriptors, which refer to blobs (image-spec, descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use oci_spec::image as spec;

use super::media_type::MediaType;
use super::{Digest, Platform};
use crate::error::{Error, Result};

/// The annotation that names an image in a layout's index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation from which containerd and podman take an image's full name.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A blob's media type, digest and size: the fields of oci-spec's descriptor that svp uses, in the order in which they
/// are written.
///
/// A missing media type reads as empty: entries of layouts may omit it, because the manifest has it.
/// `urls`, `data` and `artifactType` are neither read nor written: svp takes content by digest from the configured
/// source, never from a location that an image names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The content's media type.
    #[serde(default = "unnamed")]
    pub media_type: MediaType,
    /// The digest of the content as stored.
    pub digest: Digest,
    /// The size of the content as stored, in bytes.
    pub size: u64,
    /// The annotations.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The platform of the content; only in indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Creates a descriptor without annotations.
    pub fn new(media_type: impl Into<MediaType>, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// Creates the descriptor of `content`.
    pub fn of(media_type: impl Into<MediaType>, content: &[u8]) -> Self {
        Self::new(media_type, Digest::of(content), content.len() as u64)
    }

    /// Returns the name in `org.opencontainers.image.ref.name`, if any.
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

impl TryFrom<&spec::Descriptor> for Descriptor {
    type Error = Error;

    /// Converts a descriptor in a manifest: of the config or a layer, which have no platform.
    fn try_from(parsed: &spec::Descriptor) -> Result<Self> {
        Ok(Descriptor {
            annotations: parsed.annotations().iter().flatten().map(owned).collect(),
            ..Self::new(
                parsed.media_type().clone(),
                parsed.digest().as_ref().parse()?,
                parsed.size(),
            )
        })
    }
}

fn owned((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

fn unnamed() -> MediaType {
    MediaType::from("")
}

/// Reads `null` as the default value: Go writes empty maps and lists as `null`.
pub(super) fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
