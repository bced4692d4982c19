//! Verifies blobs and tags, and that each image is complete.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::{AGAIN, Check, REMOVE, Reached, names};
use crate::error::{IoContext, Result};
use crate::interrupt;
use crate::layer::compress::decoder;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, DigestReader, Document, Layer, Platform};
use crate::store::{Store, TagRecord, parallel};

/// Serialises zstd decoding: a window may take 32 MiB, and several would exceed svp's memory bound.
static ZSTD: Mutex<()> = Mutex::new(());

impl Check<'_> {
    pub(super) fn blobs(&mut self) -> Result<()> {
        let mut digests = Vec::new();
        for name in names(&self.store.layout().sha256())? {
            let what = format!("blobs/sha256/{name}");
            match format!("sha256:{name}").parse::<Digest>() {
                Err(_) => self.fault(what, "is not named after a digest", REMOVE),
                Ok(digest) if self.store.blob_size(&digest).is_none() => {
                    self.fault(what, "is not a file", REMOVE);
                }
                Ok(digest) => digests.push(digest),
            }
        }
        let store = self.store;
        let found: Vec<Result<_>> = parallel::spread(&digests, |digest| {
            interrupt::check()?;
            let read = |file| DigestReader::new(file).drain().io("read", store.blob_path(digest));
            Ok(store.open_blob(digest).and_then(read).map(|(found, _)| found))
        });
        for (digest, found) in digests.into_iter().zip(found) {
            let what = format!("blobs/sha256/{}", digest.hex());
            match found? {
                Ok(found) if found == digest => drop(self.whole.insert(digest)),
                Ok(found) => {
                    self.fault(what, format!("is damaged: its digest is {found}"), AGAIN);
                }
                Err(error) => self.fault(what, error.to_string(), AGAIN),
            }
        }
        Ok(())
    }

    /// Verifies the tags and the images of tags and services; returns each image once, including those in indexes.
    pub(super) fn tags(&mut self) -> Result<Vec<Reached>> {
        let mut seen = HashSet::new();
        let mut reached = Vec::new();
        for (file, record, fits) in self.store.tag_files()? {
            let what = format!("tags/{file}");
            match record {
                Err(error) => {
                    self.fault(what, error.to_string(), "remove it and tag the image again")
                }
                Ok(record) if !fits => {
                    let text = format!("is the file of tag {:?} under another name", record.name);
                    self.fault(what, text, REMOVE);
                }
                Ok(record) => self.tag(record, &mut seen, &mut reached),
            }
        }
        for (service, pin) in self.store.service_pins()? {
            let what = format!("services/{service}");
            match pin {
                Err(error) => self.fault(what, error.to_string(), REMOVE),
                Ok(pin) => self.image(what, pin.manifest, &mut seen, &mut reached),
            }
        }
        let mut layers = HashSet::new();
        let mut new = Vec::new();
        for Reached { tag, manifest } in &reached {
            match self.store.load_image(manifest) {
                Err(error) => self.fault(tag, error.to_string(), AGAIN),
                Ok(image) => {
                    for layer in image.layers() {
                        let is_new = layers.insert((layer.descriptor.digest, layer.diff_id));
                        if self.has_layer(tag, layer) && is_new {
                            new.push((tag.clone(), layer.clone()));
                        }
                    }
                }
            }
        }
        let store = self.store;
        let found: Vec<Result<_>> = parallel::spread(&new, |(_, layer)| {
            interrupt::check()?;
            Ok(diff_id(store, layer))
        });
        for ((tag, layer), found) in new.into_iter().zip(found) {
            self.diff_id(&tag, &layer, found?);
        }
        Ok(reached)
    }

    /// Verifies one tag; adds the images that no earlier tag has to `reached`.
    fn tag(&mut self, record: TagRecord, seen: &mut HashSet<Digest>, reached: &mut Vec<Reached>) {
        let TagRecord { name, manifest, .. } = record;
        if let Err(error) = name.parse::<crate::oci::Reference>() {
            self.fault(&name, error.to_string(), REMOVE);
        }
        self.image(name, manifest, seen, reached);
    }

    /// Verifies the image of the tag or service `name`.
    fn image(
        &mut self,
        name: String,
        manifest: Descriptor,
        seen: &mut HashSet<Digest>,
        reached: &mut Vec<Reached>,
    ) {
        self.has_size(&name, "manifest", &manifest);
        if !seen.insert(manifest.digest) {
            return;
        }
        match self.store.load_document(&manifest) {
            Err(error) => self.fault(&name, error.to_string(), AGAIN),
            Ok(Document::Manifest(_)) => reached.push(Reached { tag: name, manifest }),
            Ok(Document::Index(index)) => {
                for entry in index.manifests {
                    let platform =
                        entry.platform.as_ref().map_or("unknown".into(), Platform::to_string);
                    let what = format!("{name} ({platform})");
                    self.has_size(&what, "manifest", &entry);
                    if !self.store.has_blob(&entry.digest) {
                        self.fault(what, format!("lacks its manifest {}", entry.digest), AGAIN);
                    } else if seen.insert(entry.digest) {
                        reached.push(Reached { tag: what, manifest: entry });
                    }
                }
            }
        }
    }

    /// Reports a blob whose size differs from its descriptor.
    fn has_size(&mut self, what: &str, blob: &str, descriptor: &Descriptor) {
        let Descriptor { digest, size, .. } = descriptor;
        if let Some(found) = self.store.blob_size(digest).filter(|found| found != size) {
            let text = format!("its {blob} {digest} has {found} bytes instead of {size}");
            self.fault(what, text, AGAIN);
        }
    }

    /// Returns whether a layer's blob exists and is intact.
    fn has_layer(&mut self, tag: &str, layer: &Layer) -> bool {
        let digest = layer.descriptor.digest;
        if !self.store.has_blob(&digest) {
            self.fault(tag, format!("lacks its layer {digest}"), AGAIN);
            return false;
        }
        self.has_size(tag, "layer", &layer.descriptor);
        // A damaged blob is already reported.
        self.whole.contains(&digest)
    }

    /// Compares the diff ID `found` with the config and with the cached diff ID.
    fn diff_id(&mut self, tag: &str, layer: &Layer, found: Result<Digest>) {
        let digest = layer.descriptor.digest;
        match found {
            Ok(found) if found == layer.diff_id => {
                if self.store.noted_diff_id(&digest).is_some_and(|noted| noted != found) {
                    let what = format!("diff-ids/{}", digest.hex());
                    self.fault(what, "is not the diff ID of that layer", REMOVE);
                }
            }
            Ok(found) => {
                let text = format!("uncompressed, its layer {digest} is {found}");
                self.fault(tag, format!("{text}, not {} as the config says", layer.diff_id), AGAIN);
            }
            Err(error) => self.fault(tag, error.to_string(), AGAIN),
        }
    }
}

/// Decompresses a layer and returns its diff ID.
fn diff_id(store: &Store, layer: &Layer) -> Result<Digest> {
    let blob = store.blob_reader(&layer.descriptor)?;
    let compression = Compression::of_layer(&layer.descriptor.media_type)?;
    let zstd = compression == Compression::Zstd;
    let _alone = zstd.then(|| ZSTD.lock().unwrap_or_else(PoisonError::into_inner));
    let tar = decoder(blob, compression)?;
    let name = format!("layer {}", layer.descriptor.digest);
    DigestReader::new(tar).drain().map(|(digest, _)| digest).io("read", name)
}
