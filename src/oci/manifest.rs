//! Image manifests and indexes (image-spec, manifest.md and image-index.md), and Docker's equivalents.

use std::collections::BTreeMap;

use oci_spec::image::ImageManifest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::descriptor::or_null;
use super::json::{canonical, parse};
use super::media_type::{self, INDEX, MANIFEST, MediaType};
use super::{Descriptor, Platform};
use crate::error::{Error, Result};

/// The maximum number of layers in an image: overlayfs stacks no more.
const MAX_LAYERS: usize = 500;

/// A parsed image manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A parsed image index, which lists images for several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The manifests, in the index's order.
    pub manifests: Vec<Descriptor>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index: either can have a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several images to choose from.
    Index(Index),
}

/// The fields that distinguish manifests from indexes. oci-spec's types accept either as the other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    #[serde(default, deserialize_with = "or_null")]
    media_type: String,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// The fields of an index. oci-spec's `ImageIndex` refuses a whole index if one entry has no media type or an
/// incomplete platform, and reads `armbe` as another architecture.
#[derive(Deserialize)]
struct IndexFields {
    manifests: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_null")]
    annotations: BTreeMap<String, String>,
}

impl Document {
    /// Parses a manifest or an index with the media type `announced` (empty if unknown).
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the document is neither; if it is both, because other tools
    /// might interpret it differently; if it contradicts the announced type; or if its config or a layer has a media
    /// type that images don't have.
    pub fn parse(bytes: &[u8], announced: &str) -> Result<Self> {
        let shape: Shape = parse(bytes, "the manifest")?;
        if shape.schema_version == Some(1) || shape.fs_layers.is_some() {
            return Err(Error::bad_input("the manifest is Docker's schema 1").hint(
                "no tool has written it since 2017; pull the image with an old docker and push it again",
            ));
        }
        if shape.schema_version != Some(2) {
            return Err(Error::bad_input("the manifest lacks \"schemaVersion\": 2"));
        }
        let (own, announced) = (MediaType::from(&*shape.media_type), MediaType::from(announced));
        check_announced(&own, &announced)?;
        let media_type = if own.as_ref().is_empty() { announced } else { own };
        match (shape.config, shape.layers, shape.manifests) {
            (Some(_), Some(_), None) if !media_type::is_index(&media_type) => {
                let manifest = Manifest::try_from(&parse(bytes, "the manifest")?)?;
                check_media_types(&manifest.config, &manifest.layers)?;
                Ok(Document::Manifest(manifest))
            }
            (None, None, Some(_)) if !media_type::is_manifest(&media_type) => {
                let IndexFields { manifests, annotations } = parse(bytes, "the manifest")?;
                Ok(Document::Index(Index { manifests, annotations }))
            }
            _ => Err(Error::bad_input(format!(
                "the document announced as {:?} is neither an image manifest (config and layers) nor an image index (manifests)",
                media_type.as_ref()
            ))),
        }
    }
}

fn check_announced(own: &MediaType, announced: &MediaType) -> Result<()> {
    let known = |name: &MediaType| media_type::is_manifest(name) || media_type::is_index(name);
    for media_type in [own, announced] {
        let name = media_type.as_ref();
        // Plain web servers announce these for any file.
        let vague =
            matches!(name, "" | "application/json" | "application/octet-stream" | "text/plain");
        if !known(media_type) && !vague {
            return Err(Error::bad_input(format!("unknown media type {name:?} of a manifest"))
                .hint("svp reads OCI's and Docker's image manifests and indexes"));
        }
    }
    if known(own) && known(announced) && own != announced {
        return Err(Error::bad_input(format!(
            "a manifest was announced as {announced}, but its mediaType is {own}"
        )));
    }
    Ok(())
}

fn check_media_types(config: &Descriptor, layers: &[Descriptor]) -> Result<()> {
    if !media_type::is_config(&config.media_type) {
        return Err(Error::bad_input(format!(
            "unknown media type {:?} of the config {}: this is not a container image",
            config.media_type.as_ref(),
            config.digest
        ))
        .hint("svp supports only container images; use skopeo, oras or helm for other artifacts"));
    }
    if layers.len() > MAX_LAYERS {
        return Err(Error::bad_input(format!(
            "the manifest has {} layers; svp supports up to {MAX_LAYERS}",
            layers.len()
        )));
    }
    for layer in layers {
        media_type::Compression::of_layer(&layer.media_type)
            .map_err(|error| error.context(format!("layer {}", layer.digest)))?;
    }
    Ok(())
}

impl TryFrom<&ImageManifest> for Manifest {
    type Error = Error;

    fn try_from(parsed: &ImageManifest) -> Result<Self> {
        let annotations = parsed.annotations().iter().flatten();
        Ok(Manifest {
            config: parsed.config().try_into()?,
            layers: parsed.layers().iter().map(Descriptor::try_from).collect::<Result<_>>()?,
            annotations: annotations.map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }
}

impl Manifest {
    /// Returns the manifest's media type, which follows from that of its config.
    pub fn media_type(&self) -> &'static str {
        if self.config.media_type.as_ref() == media_type::DOCKER_CONFIG {
            media_type::DOCKER_MANIFEST
        } else {
            MANIFEST
        }
    }

    /// Serialises the manifest with OCI's media types, as canonical JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config,
            "layers": self.layers,
        });
        if !self.annotations.is_empty() {
            value["annotations"] = json!(self.annotations);
        }
        canonical(&value)
    }
}

impl Index {
    /// Creates an index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Index { manifests, annotations: BTreeMap::new() }
    }

    /// Serialises the index with OCI's media types, as canonical JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut value =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests});
        if !self.annotations.is_empty() {
            value["annotations"] = json!(self.annotations);
        }
        canonical(&value)
    }

    /// Iterates over the images, skipping other entries, such as the attestations that BuildKit adds.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        let known = |media_type: &MediaType| {
            media_type::is_manifest(media_type) || media_type::is_index(media_type)
        };
        self.manifests
            .iter()
            .filter(move |d| known(&d.media_type))
            .filter(|d| d.platform.as_ref().is_none_or(|platform| !platform.is_unknown()))
    }

    /// Returns the entry that suits `platform` best, the first of equals.
    ///
    /// An entry without a platform suits any, if it is the only image.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput), listing the available platforms, if none is suitable.
    pub fn select(&self, platform: &Platform) -> Result<&Descriptor> {
        let images: Vec<&Descriptor> = self.images().collect();
        let ranked = images.iter().filter_map(|d| {
            d.platform.as_ref().and_then(|p| platform.rank(p)).map(|rank| (rank, *d))
        });
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
            return Ok(best);
        }
        if let [only] = images[..]
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let mut there: Vec<String> = images
            .iter()
            .map(|d| d.platform.as_ref().map_or("(none named)".into(), Platform::to_string))
            .collect();
        there.dedup();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        Err(Error::bad_input(format!("the image index has no image for {platform}"))
            .hint(format!("available: {there}; choose one with --platform OS/ARCH[/VARIANT]")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::oci::media_type::{CONFIG, DOCKER_MANIFEST, LAYER};
    use oci_spec::image::ImageIndex;
    use serde_json::Value;

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of("x"), "size": 1})
    }

    fn manifest() -> Value {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG),
               "layers": [descriptor(LAYER)]})
    }

    fn with(mut value: Value, key: &str, to: Value) -> Value {
        value[key] = to;
        value
    }

    #[test]
    fn refuses_documents_that_are_not_images() {
        let cases = [
            ("not json", json!("x"), ""),
            ("schema 1", with(manifest(), "schemaVersion", json!(1)), ""),
            ("no version", with(manifest(), "schemaVersion", Value::Null), ""),
            ("ambiguous", with(manifest(), "manifests", json!([])), ""),
            ("announced as another", manifest(), DOCKER_MANIFEST),
            ("announced as an index", with(manifest(), "mediaType", Value::Null), INDEX),
            ("announced as html", manifest(), "text/html"),
            ("an artifact", with(manifest(), "config", descriptor("application/x")), ""),
            ("a strange layer", with(manifest(), "layers", json!([descriptor("a/b")])), ""),
            (
                "too many layers",
                with(manifest(), "layers", json!(vec![descriptor(LAYER); 501])),
                "",
            ),
            ("no layers", with(manifest(), "layers", Value::Null), ""),
            (
                "negative size",
                with(
                    manifest(),
                    "config",
                    json!({"mediaType": CONFIG, "digest": Digest::of(""), "size": -1}),
                ),
                "",
            ),
        ];
        assert!(Document::parse(&canonical(&manifest()), MANIFEST).is_ok());
        for (name, value, announced) in cases {
            let result = Document::parse(&canonical(&value), announced);
            assert_eq!(result.err().map(|e| e.kind().exit_code()), Some(65), "{name}");
        }
    }

    #[test]
    fn documents_round_trip() {
        let bytes = canonical(&manifest());
        let Document::Manifest(parsed) = Document::parse(&bytes, MANIFEST).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(parsed.encode(), bytes);
    }

    #[test]
    fn the_crate_writes_the_same_documents() {
        let annotations = BTreeMap::from(["b", "a", "c"].map(|name| (name.into(), "x".into())));
        let entry = |media_type: &str| Descriptor {
            annotations: annotations.clone(),
            ..Descriptor::of(media_type, b"x")
        };
        let manifest = Manifest {
            config: entry(CONFIG),
            layers: vec![entry(LAYER); 3],
            annotations: annotations.clone(),
        }
        .encode();
        let theirs = ImageManifest::from_reader(&manifest[..]).unwrap();
        assert_eq!(canonical(&theirs), manifest);

        let platform = Some("linux/arm/v7".parse().unwrap());
        let manifests = vec![entry(MANIFEST), Descriptor { platform, ..entry(MANIFEST) }];
        let index = Index { manifests, annotations: annotations.clone() }.encode();
        let theirs = ImageIndex::from_reader(&index[..]).unwrap();
        assert_eq!(canonical(&theirs), index);
    }

    #[test]
    fn an_index_keeps_its_images_despite_incomplete_entries() {
        let digest = Digest::of("x");
        let platform = json!({"os": "linux", "architecture": "armbe", "os.version": "1"});
        let index = json!({"schemaVersion": 2, "manifests": [
            {"digest": digest, "size": 1},
            {"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux"}},
            {"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": platform},
        ]});
        let Document::Index(index) = Document::parse(&canonical(&index), "").unwrap() else {
            panic!("an index")
        };
        let wanted = "linux/armbe".parse().unwrap();
        assert_eq!(index.select(&wanted).unwrap().platform, Some(wanted));
    }

    #[test]
    fn selects_by_platform_and_skips_attestations() {
        let entry = |platform: &str, content: &str| Descriptor {
            platform: (!platform.is_empty()).then(|| platform.parse().unwrap()),
            ..Descriptor::of(MANIFEST, content.as_bytes())
        };
        let index = Index::new(vec![
            entry("unknown/unknown", "attestation"),
            entry("linux/arm/v6", "v6"),
            entry("linux/arm/v7", "v7"),
            entry("linux/amd64", "amd64"),
        ]);
        let select = |p: &str| {
            index.select(&p.parse().unwrap()).map(|d| d.digest).map_err(|e| format!("{e:?}"))
        };
        assert_eq!(select("linux/arm/v7").unwrap(), Digest::of("v7"));
        assert_eq!(select("linux/arm/v6").unwrap(), Digest::of("v6"));
        assert_eq!(select("linux/amd64").unwrap(), Digest::of("amd64"));
        let error = select("linux/s390x").unwrap_err();
        assert!(error.contains("linux/arm/v6, linux/arm/v7, linux/amd64"), "{error}");
        assert!(!error.contains("unknown"), "{error}");
        let sole = Index::new(vec![entry("", "x")]);
        assert!(sole.select(&Platform::host()).is_ok());
    }
}
