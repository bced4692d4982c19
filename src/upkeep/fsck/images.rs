//! Verifies blobs and tags, and that each image is complete.

use std::collections::HashSet;

use super::{AGAIN, Check, REMOVE, Reached, names};
use crate::error::{Context, IoContext, Kind, Result};
use crate::interrupt;
use crate::layer::compress::{layer_decoder, zstd_permit};
use crate::layer::outline::Outline;
use crate::oci::{Descriptor, Digest, DigestReader, Document, Layer, Platform};
use crate::source::lower_links;
use crate::store::{Store, TagRecord, parallel};

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
                    // Otherwise a pull would keep the blob.
                    self.store.forget_layer_note(&digest);
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
        self.layers(&reached)?;
        Ok(reached)
    }

    /// Verifies the layers of images: diff IDs, and that they can be unpacked.
    fn layers(&mut self, reached: &[Reached]) -> Result<()> {
        let mut seen = HashSet::new();
        let mut new = Vec::new();
        let mut images = Vec::new();
        for Reached { tag, manifest } in reached {
            match self.store.load_image(manifest) {
                Err(error) => self.fault(tag, error.to_string(), AGAIN),
                Ok(image) => {
                    for layer in image.layers() {
                        let is_new = seen.insert((layer.descriptor.digest, layer.diff_id));
                        if self.has_layer(tag, layer) && is_new {
                            new.push((tag.clone(), layer.clone()));
                        }
                    }
                    images.push((tag, image));
                }
            }
        }
        let store = self.store;
        let found: Vec<Result<_>> = parallel::spread(&new, |(_, layer)| {
            interrupt::check()?;
            Ok(read_layer(store, layer))
        });
        let mut linked = HashSet::new();
        for ((tag, layer), found) in new.into_iter().zip(found) {
            if self.layer(&tag, &layer, found?) {
                linked.insert(layer.descriptor.digest);
            }
        }
        for (tag, image) in images {
            if image.layers().iter().any(|layer| linked.contains(&layer.descriptor.digest)) {
                match lower_links::check_stored(&image, store) {
                    Err(error) if error.kind() == Kind::BadInput => {
                        self.fault(tag, error.to_string(), AGAIN);
                    }
                    other => other?,
                }
            }
        }
        Ok(())
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

    /// Reports what is wrong with a layer; returns whether it has hard links to files of lower layers.
    fn layer(&mut self, tag: &str, layer: &Layer, found: Result<ReadLayer>) -> bool {
        let digest = layer.descriptor.digest;
        let ReadLayer { diff_id, needs_lower } = match found {
            Ok(found) => found,
            Err(error) => {
                self.fault(tag, error.to_string(), AGAIN);
                return false;
            }
        };
        if diff_id != layer.diff_id {
            self.fault(tag, layer.other_diff_id(&diff_id).to_string(), AGAIN);
        } else if self.store.noted_diff_id(&digest).is_some_and(|noted| noted != diff_id) {
            let what = format!("diff-ids/{}", digest.hex());
            self.fault(what, "is not the diff ID of that layer", REMOVE);
        }
        match needs_lower {
            Ok(needs_lower) => needs_lower,
            Err(error) => {
                self.fault(tag, format!("layer {digest}: {error}"), AGAIN);
                false
            }
        }
    }
}

/// What a layer's tar shows.
struct ReadLayer {
    diff_id: Digest,
    /// Whether it has hard links to files of lower layers, or why it can't be unpacked.
    needs_lower: Result<bool>,
}

/// Decompresses a layer, and finds out whether it can be unpacked.
fn read_layer(store: &Store, layer: &Layer) -> Result<ReadLayer> {
    let (compression, tar) = layer_decoder(store.blob_reader(&layer.descriptor)?)?;
    let _permit = zstd_permit(compression);
    let name = format!("layer {}", layer.descriptor.digest);
    let mut tar = DigestReader::new(tar);
    let outline = Outline::of_layer().add_layer(&mut tar);
    let needs_lower = match outline {
        Err(error) if error.kind() != Kind::BadInput => return Err(error).context(name),
        other => other,
    };
    // A damaged stream fails here.
    let (diff_id, _) = tar.drain().io("read", name)?;
    Ok(ReadLayer { diff_id, needs_lower })
}
