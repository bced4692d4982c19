//! Checks fetched manifests and indexes.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fault::excerpt;
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::oci::media_type::{self, MediaType};

/// The maximum size of a manifest: 4 MiB, as distribution-spec recommends to registries.
pub const LARGEST_MANIFEST: u64 = 4 << 20;

/// The manifest types that svp reads, for `Accept`.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or index as a registry sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// The bytes whose digest is `digest`.
    pub bytes: Vec<u8>,
    /// One of the manifest and index types of [`media_type`].
    pub media_type: String,
    /// Computed from `bytes`, and equal to the requested digest, if any.
    pub digest: Digest,
}

/// The fields that distinguish manifests from indexes.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Checks a manifest from `server` against its `Content-Type`.
///
/// # Errors
/// [`Kind::Registry`](crate::error::Kind::Registry) if the content is not a manifest, is of an unsupported type, or
/// contradicts the `Content-Type`.
pub(super) fn check(
    server: &str,
    content_type: Option<&str>,
    bytes: Vec<u8>,
) -> Result<RawManifest> {
    let sent = |what: String| Error::registry(format!("{server} sends {what}"));
    let content_type = content_type.map(|text| excerpt(text, 80));
    if content_type.as_deref() == Some("text/html") {
        return Err(sent("a web page instead of a manifest".into())
            .hint("is this a registry? a proxy or a login page of the network may be in between"));
    }
    // serde also deserialises a structure from an array, but a manifest is an object.
    let is_object = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let shape: Option<Shape> = if is_object { serde_json::from_slice(&bytes).ok() } else { None };
    let Some(shape) = shape else {
        let kind = content_type.unwrap_or_else(|| "no Content-Type".into());
        return Err(sent(format!("a manifest that is not a JSON object ({kind})"))
            .hint("is this a registry?"));
    };
    if shape.fs_layers.is_some() {
        return Err(sent("a manifest of Docker's old schema 1".into())
            .hint("push the image again with a current tool"));
    }
    let looks_like_index = shape.manifests.is_some();
    let looks_like_manifest = shape.config.is_some() && shape.layers.is_some();
    let known = |text: &str| {
        let media_type = MediaType::from(text);
        media_type::is_index(&media_type) || media_type::is_manifest(&media_type)
    };
    let declared = content_type.filter(|text| known(text));
    let media_type = match (declared, shape.media_type) {
        (Some(header), Some(own)) if header != own => {
            return Err(sent(format!(
                "a manifest as {header} whose mediaType is {:?}",
                excerpt(&own, 80)
            )));
        }
        (Some(header), _) => header,
        (None, Some(own)) if known(&own) => own,
        (None, Some(own)) => {
            return Err(sent(format!("a manifest of unknown type {:?}", excerpt(&own, 80))));
        }
        (None, None) if looks_like_index => media_type::INDEX.to_owned(),
        (None, None) => media_type::MANIFEST.to_owned(),
    };
    let fits = if media_type::is_index(&MediaType::from(&*media_type)) {
        looks_like_index && shape.layers.is_none()
    } else {
        looks_like_manifest && !looks_like_index
    };
    if !fits {
        return Err(sent(format!("content as {media_type} that does not match this type")));
    }
    Ok(RawManifest { digest: Digest::of(&bytes), bytes, media_type })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST};

    #[test]
    fn distinguishes_manifests_indexes_and_other_content() {
        let manifest = r#"{"config":{},"layers":[]}"#;
        let index = r#" {"manifests":[]}"#;
        let own = format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","config":{{}},"layers":[]}}"#);
        let json = "application/json";
        let cases: &[(Option<&str>, &str, Result<&str, &str>)] = &[
            (Some(MANIFEST), manifest, Ok(MANIFEST)),
            (Some(DOCKER_INDEX), index, Ok(DOCKER_INDEX)),
            (None, manifest, Ok(MANIFEST)),
            (Some(json), index, Ok(INDEX)),
            (Some(json), &own, Ok(DOCKER_MANIFEST)),
            (Some(DOCKER_MANIFEST), &own, Ok(DOCKER_MANIFEST)),
            (Some(MANIFEST), &own, Err("whose mediaType is")),
            (Some(MANIFEST), index, Err("does not match")),
            (Some(INDEX), manifest, Err("does not match")),
            (Some(INDEX), r#"{"manifests":[],"config":{},"layers":[]}"#, Err("does not match")),
            (Some(MANIFEST), r#"{"manifests":[],"config":{},"layers":[]}"#, Err("does not match")),
            (Some(json), r#"{"mediaType":"text/x","config":{},"layers":[]}"#, Err("unknown type")),
            (Some(json), r#"{"fsLayers":[]}"#, Err("schema 1")),
            (Some("text/html"), "<html>", Err("web page")),
            (Some("text/html"), manifest, Err("web page")),
            (Some(MANIFEST), "<html>", Err("not a JSON object")),
            (Some(MANIFEST), "[null,null,{},[],null]", Err("not a JSON object")),
            (Some(MANIFEST), "", Err("not a JSON object")),
            (Some(MANIFEST), "{\"config\":{},\"layers\":[]} x", Err("not a JSON object")),
        ];
        for (content_type, text, expected) in cases {
            let got = check("r", *content_type, text.as_bytes().to_vec());
            match (got, expected) {
                (Ok(got), Ok(expected)) => {
                    assert_eq!(got.media_type, *expected, "{text}");
                    assert_eq!(got.digest, Digest::of(text));
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{text}: {error}");
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn every_supported_type_is_requested() {
        for media_type in [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX] {
            assert!(ACCEPT.split(", ").any(|accepted| accepted == media_type), "{media_type}");
        }
    }
}
