//! Recompresses the layers of an image before it is copied to its destination.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::rc::Rc;

use serde_json::{Value, json};

use super::layer::read_tar;
use super::tee::undecodable;
use crate::error::{Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::layer::compress::Encoder;
use crate::layer::settings::Settings;
use crate::oci::json::{MAX_MANIFEST, canonical, parse};
use crate::oci::media_type::{Compression, DOCKER_MANIFEST, INDEX};
use crate::oci::{Descriptor, Digest, Document, Layer};
use crate::progress::{Reporter, Step};
use crate::store::{BlobWriter, LayerNote, Store};

/// Annotations that describe the structure of a layer's blob, and so do not apply to another blob: zstd:chunked's,
/// eStargz's and SOCI's.
const OF_THE_BLOB: [&str; 3] = [
    "io.github.containers.zstd-chunked.",
    "io.containers.zstd-chunked.",
    "containerd.io/snapshot/",
];

/// Recompresses the layers of an image in the store, or of all images of an index, according to `settings`. Keeps
/// layers of that format unless a level is requested, corrects media types that lie, and returns an image unchanged if no layer changes. Config and
/// diff IDs stay; the manifest changes. Tags nothing; on failure the store is unchanged.
///
/// # Errors
/// [`Kind::BadInput`] if a layer's blob is missing or damaged, or the manifest is Docker's and the format zstd;
/// [`Kind::Storage`]; [`Kind::Interrupted`].
pub fn recompress(
    descriptor: &Descriptor,
    settings: Settings,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let Document::Index(mut index) = store.load_document(descriptor)? else {
        return recompress_image(descriptor, settings, store, reporter);
    };
    for entry in &mut index.manifests {
        let image = recompress_image(entry, settings, store, reporter)?;
        (entry.digest, entry.size) = (image.digest, image.size);
    }
    let bytes = index.encode();
    if store.load_document(descriptor)? == Document::Index(index) {
        return Ok(descriptor.clone());
    }
    store.put_blob(&bytes)?;
    Ok(Descriptor::of(INDEX, &bytes))
}

fn recompress_image(
    descriptor: &Descriptor,
    settings: Settings,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Descriptor> {
    let manifest = store.load_manifest(descriptor)?;
    let image = store.load_image(descriptor)?;
    let format = settings.compression();
    let mut written: HashMap<Digest, Written> = HashMap::new();
    let mut changes = Vec::new();
    for (place, layer) in image.layers().iter().enumerate() {
        let digest = layer.descriptor.digest;
        let is_kept =
            store.blob_compression(&digest)? == format && settings.asked_level().is_none();
        if is_kept && Compression::of_layer(&layer.descriptor.media_type)? == format {
            continue;
        }
        let media_type = match manifest.media_type() {
            DOCKER_MANIFEST => {
                format.docker_layer_media_type().ok_or_else(|| no_zstd(descriptor))?
            }
            _ => format.layer_media_type(),
        };
        changes.push((place, digest, media_type));
        if is_kept || written.contains_key(&digest) {
            continue;
        }
        let layer_digest = digest.to_string();
        reporter.step(match format {
            Compression::None => Step::DecompressLayer { digest: layer_digest },
            _ => Step::CompressLayer { digest: layer_digest, compression: format.to_string() },
        });
        written.insert(digest, write(layer, settings, store)?);
    }
    if changes.is_empty() {
        return Ok(descriptor.clone());
    }
    publish(descriptor, &changes, written, store)
}

/// A recompressed layer that is not yet published as a blob.
struct Written {
    blob: BlobWriter,
    /// What is known of the old blob, and so of the new one.
    note: Option<LayerNote>,
}

fn write(layer: &Layer, settings: Settings, store: &Store) -> Result<Written> {
    let descriptor = &layer.descriptor;
    let input = Rc::new(RefCell::new(store.blob_reader(descriptor)?));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut encoder = Encoder::new(store.blob_writer()?, settings, threads)?;
    let read = read_tar(&input, |tar| {
        let mut buffer = vec![0; 64 << 10];
        loop {
            interrupt::check()?;
            match tar.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => encoder.write_all(&buffer[..length]).io("write", "a new blob")?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(undecodable(error)),
            }
        }
    });
    match read {
        Ok((found, ())) if found == layer.diff_id => {
            let note = store.layer_note(&descriptor.digest);
            Ok(Written { blob: encoder.finish()?, note })
        }
        Ok((found, ())) => Err(layer.other_diff_id(&found)),
        Err(error) if error.kind() == Kind::BadInput && store.is_damaged(descriptor) => {
            Err(store.damaged(&descriptor.digest))
        }
        Err(error) => Err(error.context(format!("layer {}", descriptor.digest))),
    }
}

/// Stores the new blobs, and the manifest with the new descriptors.
fn publish(
    descriptor: &Descriptor,
    changes: &[(usize, Digest, &str)],
    written: HashMap<Digest, Written>,
    store: &Store,
) -> Result<Descriptor> {
    let bytes = store.read_blob_bounded(&descriptor.digest, MAX_MANIFEST)?;
    // Edit the JSON, to keep unknown fields of the manifest.
    let mut manifest: Value = parse(&bytes, "the manifest")?;
    let mut stored: HashMap<Digest, (Digest, u64)> = HashMap::new();
    for (old, Written { blob, note }) in written {
        let (digest, size) = blob.finish()?;
        if let Some(note) = note {
            store.note_layer(&digest, &note)?;
        }
        stored.insert(old, (digest, size));
    }
    for (place, old, media_type) in changes {
        let entry = &mut manifest["layers"][*place];
        // A kept blob whose media type was wrong.
        let Some((digest, size)) = stored.get(old) else {
            entry["mediaType"] = (*media_type).into();
            continue;
        };
        *entry = renewed(entry, Descriptor::new(*media_type, *digest, *size));
    }
    let bytes = canonical(&manifest);
    let digest = store.put_blob(&bytes)?;
    let size = bytes.len() as u64;
    Ok(Descriptor {
        platform: descriptor.platform.clone(),
        ..Descriptor::new(descriptor.media_type.clone(), digest, size)
    })
}

/// Returns a layer's descriptor for its new blob; keeps the annotations that don't describe the old blob's bytes.
fn renewed(old: &Value, new: Descriptor) -> Value {
    let notes = old["annotations"].as_object().into_iter().flatten();
    let annotations: BTreeMap<String, String> = notes
        .filter(|(name, _)| !OF_THE_BLOB.iter().any(|prefix| name.starts_with(prefix)))
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    json!(Descriptor { annotations, ..new })
}

fn no_zstd(descriptor: &Descriptor) -> Error {
    Error::bad_input(format!(
        "the manifest {} is Docker schema 2, which does not support zstd layers",
        descriptor.digest
    ))
    .hint("choose gzip, or convert it to an OCI image first: `svp copy SOURCE oci:DIR:NAME`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::LAYER_ZSTD;

    #[test]
    fn annotations_of_the_old_bytes_are_dropped() {
        let old = json!({
            "mediaType": "x", "digest": "y", "size": 1, "data": "eA==", "urls": ["https://x/"],
            "annotations": {
                "a": "kept",
                "io.github.containers.zstd-chunked.manifest-position": "1:2:3:1",
                "containerd.io/snapshot/stargz/toc.digest": "sha256:0",
            },
        });
        let new = Descriptor::of(LAYER_ZSTD, b"new");
        let mut expected = json!(new);
        expected["annotations"] = json!({"a": "kept"});
        assert_eq!(renewed(&old, new), expected);
    }
}
