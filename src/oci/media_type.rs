//! Media types of image-spec (media-types.md), as in the crate oci-spec, and Docker's older equivalents.
//!
//! Parsed documents use [`MediaType`]. The constants are the same names as text, for headers and for JSON that is
//! edited in place.

pub use oci_spec::image::MediaType;

use crate::error::{Error, Result};

/// An OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An OCI layer, a plain tar.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer, a tar compressed with gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer, a tar compressed with zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer, compressed with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's layer, a plain tar.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer, compressed with zstd (written by buildx and skopeo).
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The compression of a layer's tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952; one or more members.
    Gzip,
    /// RFC 8878; one or more frames.
    Zstd,
}

impl Compression {
    /// Returns the OCI media type of a layer with this compression.
    pub fn layer_media_type(self) -> &'static str {
        match self {
            Compression::None => LAYER,
            Compression::Gzip => LAYER_GZIP,
            Compression::Zstd => LAYER_ZSTD,
        }
    }

    /// Returns Docker's media type of a layer with this compression; `None` for zstd, which Docker does not define.
    pub fn docker_layer_media_type(self) -> Option<&'static str> {
        match self {
            Compression::None => Some(DOCKER_LAYER),
            Compression::Gzip => Some(DOCKER_LAYER_GZIP),
            Compression::Zstd => None,
        }
    }

    /// Returns the compression that a layer's media type declares.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for any other media type, including those of foreign
    /// (non-distributable) layers.
    pub fn of_layer(media_type: &MediaType) -> Result<Self> {
        match media_type {
            MediaType::ImageLayer => return Ok(Compression::None),
            MediaType::ImageLayerGzip => return Ok(Compression::Gzip),
            MediaType::ImageLayerZstd => return Ok(Compression::Zstd),
            _ => {}
        }
        match media_type.as_ref() {
            DOCKER_LAYER => Ok(Compression::None),
            DOCKER_LAYER_GZIP => Ok(Compression::Gzip),
            DOCKER_LAYER_ZSTD => Ok(Compression::Zstd),
            other => Err(Error::bad_input(format!("unknown layer media type {other:?}")).hint(
                "svp supports tar, tar+gzip and tar+zstd layers with OCI's or Docker's media types",
            )),
        }
    }
}

impl std::fmt::Display for Compression {
    /// Formats as in command line options: `gzip`, `zstd`, `none`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// Returns whether `media_type` is an image index (OCI's or Docker's).
pub fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || media_type.as_ref() == DOCKER_INDEX
}

/// Returns whether `media_type` is an image manifest (OCI's or Docker's).
pub fn is_manifest(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest || media_type.as_ref() == DOCKER_MANIFEST
}

/// Returns whether `media_type` is an image config (OCI's or Docker's).
pub fn is_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageConfig || media_type.as_ref() == DOCKER_CONFIG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_crate() {
        let names = [
            (MANIFEST, MediaType::ImageManifest),
            (INDEX, MediaType::ImageIndex),
            (CONFIG, MediaType::ImageConfig),
            (LAYER, MediaType::ImageLayer),
            (LAYER_GZIP, MediaType::ImageLayerGzip),
            (LAYER_ZSTD, MediaType::ImageLayerZstd),
        ];
        for (text, media_type) in names {
            assert_eq!(MediaType::from(text), media_type);
            assert_eq!(media_type.as_ref(), text);
        }
    }
}
