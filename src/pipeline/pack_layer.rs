//! A pack as a layer: written once as a normalised tar, which is unpacked for queries and builds, and compressed into
//! the layer's blob.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::os::fd::OwnedFd;

use super::new_layer::NewLayer;
use crate::error::{IoContext, Result};
use crate::layer::compress::Encoder;
use crate::layer::settings::Settings;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, DigestWriter};
use crate::pack::{PREFIX, Pack};
use crate::sandbox::LayerSource;
use crate::store::Store;

/// A pack's normalised tar, in an unnamed temporary file.
pub(super) struct PackLayer {
    tar: File,
    digest: Digest,
    size: u64,
}

impl PackLayer {
    /// Writes the pack's tar. Its digest is the pack's content digest and its layer's diff ID.
    pub(super) fn new(pack: &Pack) -> Result<PackLayer> {
        let file = tempfile::tempfile().io("create", "a temporary file")?;
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        let digest = pack.write_layer(&mut writer, PREFIX)?;
        writer.flush().io("write", "a temporary file")?;
        let tar = writer
            .into_inner()
            .map_err(|error| error.into_error())
            .io("write", "a temporary file")?;
        let size = tar.metadata().io("stat", "a temporary file")?.len();
        Ok(PackLayer { tar, digest, size })
    }

    /// The content digest.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// The tar, for a sandbox that unpacks it.
    pub(super) fn tar(&self) -> Result<OwnedFd> {
        Ok(self.rewound()?.into())
    }

    /// The tar as a layer to unpack.
    pub(super) fn layer(&self, chain_id: Digest) -> Result<LayerSource> {
        Ok(LayerSource {
            blob: self.rewound()?,
            digest: self.digest,
            size: self.size,
            compression: Compression::None,
            diff_id: self.digest,
            chain_id,
        })
    }

    /// Compresses the tar into a blob, which [`NewLayer::put_on`] adds to the store.
    pub(super) fn blob(&self, store: &Store, settings: Settings) -> Result<NewLayer> {
        let writer = store.blob_writer()?;
        let file = writer.as_file().try_clone().io("open", "a new blob")?;
        let stored = DigestWriter::new(BufWriter::new(file));
        let mut encoder = Encoder::new(stored, settings, 1)?;
        let mut tar = self.rewound()?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match tar.read(&mut buffer).io("read", "the pack's tar")? {
                0 => break,
                length => encoder.write_all(&buffer[..length]).io("write", "a new blob")?,
            }
        }
        let (mut file, digest, size) = encoder.finish()?.finish();
        file.flush().io("write", "a new blob")?;
        let descriptor = Descriptor::new(settings.compression().layer_media_type(), digest, size);
        Ok(NewLayer { writer, descriptor, diff_id: self.digest })
    }

    fn rewound(&self) -> Result<File> {
        let mut tar = self.tar.try_clone().io("open", "the pack's tar")?;
        tar.rewind().io("rewind", "the pack's tar")?;
        Ok(tar)
    }
}
