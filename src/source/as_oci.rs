//! Converts a Docker schema 2 image into an OCI image, for destinations that support only those.

use serde_json::Value;

use crate::error::Result;
use crate::oci::json::{MAX_MANIFEST, canonical, parse};
use crate::oci::media_type::{CONFIG, Compression, DOCKER_MANIFEST, INDEX, MANIFEST, MediaType};
use crate::oci::{Descriptor, Document, Manifest};
use crate::progress::{ImageNote, Reporter};
use crate::store::Store;

/// Converts an image in the store, or an index with all its images, to OCI manifests; returns it unchanged if it has
/// no Docker manifests. Config and layers stay byte for byte, under OCI's media types. Tags nothing.
///
/// This is necessary because skopeo and podman ignore Docker manifests in an image layout.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if a manifest is missing or damaged;
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub fn as_oci(
    descriptor: &Descriptor,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let Document::Index(mut index) = store.load_document(descriptor)? else {
        return image_as_oci(descriptor, store, reporter);
    };
    let mut changed = descriptor.media_type != MediaType::ImageIndex;
    for entry in &mut index.manifests {
        // The store may lack some images of an index.
        if store.has_blob(&entry.digest) && entry.media_type.as_ref() == DOCKER_MANIFEST {
            let image = image_as_oci(entry, store, reporter)?;
            *entry = Descriptor { annotations: entry.annotations.clone(), ..image };
            changed = true;
        }
    }
    if !changed {
        return Ok(descriptor.clone());
    }
    let bytes = index.encode();
    store.put_blob(&bytes)?;
    Ok(Descriptor::of(INDEX, &bytes))
}

fn image_as_oci(
    descriptor: &Descriptor,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let bytes = store.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
    let manifest: Value = parse(&bytes, "the manifest")?;
    if manifest["mediaType"].as_str().unwrap_or(descriptor.media_type.as_ref()) != DOCKER_MANIFEST {
        return Ok(descriptor.clone());
    }
    let bytes = renamed(manifest, &store.load_manifest(descriptor)?, store)?;
    let digest = store.put_blob(&bytes)?;
    let (digest_told, docker_digest) = (digest.to_string(), descriptor.digest.to_string());
    reporter.note(ImageNote::OciManifest { digest: digest_told, docker_digest }.into());
    Ok(Descriptor {
        platform: descriptor.platform.clone(),
        ..Descriptor::new(MANIFEST, digest, bytes.len() as u64)
    })
}

/// Returns the manifest with OCI's media types, those of layers as their bytes say; everything else stays.
fn renamed(mut manifest: Value, parsed: &Manifest, store: &Store) -> Result<Vec<u8>> {
    manifest["mediaType"] = MANIFEST.into();
    manifest["config"]["mediaType"] = CONFIG.into();
    for (n, layer) in parsed.layers.iter().enumerate() {
        let compression = match store.has_blob(&layer.digest) {
            true => store.blob_compression(&layer.digest)?,
            false => Compression::of_layer(&layer.media_type)?,
        };
        manifest["layers"][n]["mediaType"] = compression.layer_media_type().into();
    }
    Ok(canonical(&manifest))
}
