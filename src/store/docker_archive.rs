//! Writes an image of the store in the format of `docker save`, for `docker load`, `podman load` and other readers.
//!
//! Keeps the config byte for byte, and with it the image ID. Layers are plain tars, named after their diff IDs;
//! the format has no manifest, so the manifest digest is lost.

use std::collections::HashSet;
use std::io::{self, Read, Write};

use serde_json::json;

use super::Store;
use super::export::Interruptible;
use crate::error::{Context, Error, IoContext, Result};
use crate::interrupt;
use crate::layer::compress::layer_decoder;
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::write::TarWriter;
use crate::oci::json::{MAX_CONFIG, canonical};
use crate::oci::{Descriptor, DigestReader, Layer, Reference};

impl Store {
    /// Writes the image with the manifest `descriptor` to `output`, as `reference`. Output is reproducible.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a blob of the image is missing or damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn write_docker_archive(
        &self,
        descriptor: &Descriptor,
        output: &mut dyn Write,
        reference: &Reference,
    ) -> Result<()> {
        let image = self.load_image(descriptor)?;
        let config = self.load_manifest(descriptor)?.config.digest;
        let config_name = format!("{}.json", config.hex());
        let config = self.read_blob_bounded(&config, MAX_CONFIG)?;
        let mut tar = TarWriter::new(io::BufWriter::with_capacity(128 << 10, output));
        let mut file = |name: &str, size: u64, content: &mut dyn Read| {
            let entry = Entry { size, ..Entry::new(name, EntryKind::File, 0o644) };
            tar.append(&entry, content)
        };
        file(&config_name, config.len() as u64, &mut &config[..])?;
        let mut written = HashSet::new();
        for layer in image.layers() {
            if !written.insert(layer.diff_id) {
                continue;
            }
            let size = self.tar_size(layer).map_err(interrupt::or_interrupted)?;
            file(&layer_name(layer), size, &mut self.layer_tar(layer)?)
                .map_err(interrupt::or_interrupted)?;
        }
        // docker and podman complete short names differently, so write a complete one.
        let name = reference.clone().with_default_registry().tagged();
        let layers: Vec<String> = image.layers().iter().map(layer_name).collect();
        let manifest =
            canonical(&json!([{ "Config": config_name, "RepoTags": [name], "Layers": layers }]));
        file("manifest.json", manifest.len() as u64, &mut &manifest[..])?;
        tar.finish()?.flush().io("write", "the archive")
    }

    /// Returns a layer's uncompressed size in bytes, which precedes the content in a tar. Verifies its diff ID.
    fn tar_size(&self, layer: &Layer) -> Result<u64> {
        let tar = DigestReader::new(self.layer_tar(layer)?);
        let damaged = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                self.damaged(&layer.descriptor.digest).source(error)
            }
            _ => Error::io("read", self.blob_path(&layer.descriptor.digest), error),
        };
        let (diff_id, size) = tar.drain().map_err(damaged)?;
        if diff_id == layer.diff_id {
            return Ok(size);
        }
        Err(layer.other_diff_id(&diff_id))
    }

    fn layer_tar(&self, layer: &Layer) -> Result<Box<dyn Read>> {
        let blob = Interruptible(self.blob_reader(&layer.descriptor)?);
        let tar = layer_decoder(blob).context(format!("layer {}", layer.descriptor.digest))?;
        Ok(tar.1)
    }
}

fn layer_name(layer: &Layer) -> String {
    format!("{}.tar", layer.diff_id.hex())
}
