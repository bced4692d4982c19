//! An image in memory: its config and layers, read and written together.

use super::config::{Config, History};
use super::manifest::{Document, Manifest};
use super::media_type::{CONFIG, Compression, MANIFEST};
use super::{Descriptor, Digest, Platform};
use crate::error::{Error, Result};

/// A layer: its blob and its diff ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob. Its media type is always OCI's, even for a base with Docker's.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// An image: config and layers. Every change makes a different image; [`Image::encode`] returns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    config: Config,
    layers: Vec<Layer>,
}

/// An image's two documents, ready to be stored: first the config, then the manifest that references it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The config's descriptor.
    pub config_descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The manifest's descriptor, with the platform.
    pub descriptor: Descriptor,
}

impl Layer {
    /// Creates the error for a layer whose blob is intact, but whose uncompressed tar has another diff ID.
    pub fn other_diff_id(&self, found: &Digest) -> Error {
        Error::bad_input(format!(
            "the uncompressed layer {} is {found}, not {} as the config says",
            self.descriptor.digest, self.diff_id
        ))
        .hint("this image is damaged, or someone tampered with it; get it from another source")
    }
}

impl Image {
    /// Creates an image without layers.
    pub fn new(platform: &Platform) -> Self {
        Image { config: Config::new(platform), layers: Vec::new() }
    }

    /// Combines a parsed manifest and the bytes of its config, which the caller has verified.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the config is invalid
    /// ([`Config::parse`]) or its number of layers differs from the manifest's.
    pub fn from_parts(manifest: &Manifest, config: &[u8]) -> Result<Self> {
        let config = Config::parse(config)
            .map_err(|error| error.context(format!("config {}", manifest.config.digest)))?;
        let diff_ids = config.diff_ids()?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::bad_input(format!(
                "the manifest has {} layers and the config {} has {} diff IDs",
                manifest.layers.len(),
                manifest.config.digest,
                diff_ids.len()
            )));
        }
        let layer = |(descriptor, diff_id): (&Descriptor, Digest)| -> Result<Layer> {
            let compression = Compression::of_layer(&descriptor.media_type)?;
            let media_type = compression.layer_media_type().into();
            let platform = None;
            Ok(Layer {
                descriptor: Descriptor { media_type, platform, ..descriptor.clone() },
                diff_id,
            })
        };
        let layers = manifest.layers.iter().zip(diff_ids).map(layer).collect::<Result<_>>()?;
        Ok(Image { config, layers })
    }

    /// Returns the config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the config for editing. Only [`Image::append_layer`] may change its diff IDs.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Returns the layers, lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Returns the chain ID of each layer, lowest first; see [`chain_ids`].
    pub fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(self.layers.iter().map(|layer| layer.diff_id))
    }

    /// Returns the sum of the stored layer sizes, in bytes.
    pub fn size(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.descriptor.size))
    }

    /// Adds a layer on top, with its history entry.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the descriptor's media type is not a layer's.
    pub fn append_layer(
        &mut self,
        descriptor: Descriptor,
        diff_id: Digest,
        entry: &History,
    ) -> Result<()> {
        Compression::of_layer(&descriptor.media_type)?;
        self.config.append_layer(diff_id, entry)?;
        self.layers.push(Layer { descriptor, diff_id });
        Ok(())
    }

    /// Serialises config and manifest; the same image gives the same bytes.
    pub fn encode(&self) -> Encoded {
        let config = self.config.encode();
        let config_descriptor = Descriptor::of(CONFIG, &config);
        let manifest = Manifest {
            config: config_descriptor.clone(),
            layers: self.layers.iter().map(|layer| layer.descriptor.clone()).collect(),
            annotations: Default::default(),
        }
        .encode();
        let descriptor = Descriptor {
            platform: Some(self.config.platform()),
            ..Descriptor::of(MANIFEST, &manifest)
        };
        Encoded { config, config_descriptor, manifest, descriptor }
    }
}

/// Parses the manifest of one image; refuses an index.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) as [`Document::parse`], and if it is an index.
pub fn parse_manifest(bytes: &[u8], announced: &str) -> Result<Manifest> {
    match Document::parse(bytes, announced)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(Error::bad_input("found an image index instead of a manifest")),
    }
}

/// Returns the chain ID of each layer (image-spec, config.md, "Layer ChainID"): the first is the diff ID, each
/// further one the digest of `chain " " diff ID`. Equal chain IDs mean equal trees.
pub fn chain_ids(diff_ids: impl IntoIterator<Item = Digest>) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        let next = chain.last().map_or(diff_id, |last| Digest::of(format!("{last} {diff_id}")));
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::{
        DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, LAYER_GZIP, LAYER_ZSTD,
    };
    use serde_json::{Value, json};

    fn docker_base() -> (Manifest, Vec<u8>) {
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of("tar")]},
        }))
        .unwrap();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
            "config": Descriptor::of(DOCKER_CONFIG, &config),
            "layers": [Descriptor::of(DOCKER_LAYER_GZIP, b"gz")],
        }))
        .unwrap();
        (parse_manifest(&manifest, DOCKER_MANIFEST).unwrap(), config)
    }

    #[test]
    fn a_docker_image_becomes_an_oci_image_with_the_same_layers() {
        let (manifest, config) = docker_base();
        let mut image = Image::from_parts(&manifest, &config).unwrap();
        let added = Descriptor::of(LAYER_ZSTD, b"zst");
        image.append_layer(added, Digest::of("tar2"), &History::default()).unwrap();
        let encoded = image.encode();
        let value: Value = serde_json::from_slice(&encoded.manifest).unwrap();
        let types: Vec<_> =
            value["layers"].as_array().unwrap().iter().map(|l| l["mediaType"].clone()).collect();
        assert_eq!(types, [LAYER_GZIP, LAYER_ZSTD]);
        assert_eq!(value["config"]["mediaType"], CONFIG);
        assert_eq!(value["layers"][0]["digest"], json!(Digest::of("gz")));

        let again = parse_manifest(&encoded.manifest, MANIFEST).unwrap();
        let again = Image::from_parts(&again, &encoded.config).unwrap();
        assert_eq!(again, image);
        assert_eq!(again.encode(), encoded);
    }

    #[test]
    fn the_oci_crate_reads_what_is_written() {
        let (manifest, config) = docker_base();
        let encoded = Image::from_parts(&manifest, &config).unwrap().encode();
        let theirs = oci_spec::image::ImageManifest::from_reader(&encoded.manifest[..]).unwrap();
        assert_eq!(theirs.layers().len(), 1);
        let theirs = oci_spec::image::ImageConfiguration::from_reader(&encoded.config[..]).unwrap();
        assert_eq!(theirs.rootfs().diff_ids(), &[Digest::of("tar").to_string()]);
    }

    #[test]
    fn layers_and_diff_ids_must_agree() {
        let (mut manifest, config) = docker_base();
        manifest.layers.push(manifest.layers[0].clone());
        let error = Image::from_parts(&manifest, &config).unwrap_err();
        assert!(error.message().contains("2 layers"), "{error}");
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let [a, b, c] = ["a", "b", "c"].map(Digest::of);
        let ab = Digest::of(format!("{a} {b}"));
        assert_eq!(chain_ids([a, b, c]), [a, ab, Digest::of(format!("{ab} {c}"))]);
        assert!(chain_ids([]).is_empty());
    }
}
