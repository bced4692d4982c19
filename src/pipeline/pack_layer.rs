//! A pack as a layer: written once as a normalised tar, which is unpacked for queries and builds, and compressed into
//! the layer's blob.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::OwnedFd;

use super::new_layer::NewLayer;
use super::temporary::{TemporaryWriter, cannot_write};
use crate::error::{IoContext, Result};
use crate::layer::compress::Encoder;
use crate::layer::settings::Settings;
use crate::oci::{Descriptor, Digest, DigestWriter};
use crate::pack::{PREFIX, Pack, opaque_prefix};
use crate::sandbox::LayerSource;
use crate::store::Store;

/// A pack's normalised tar, in an unnamed temporary file.
pub(super) struct PackLayer {
    tar: File,
    digest: Digest,
    diff_id: Digest,
    size: u64,
}

impl PackLayer {
    /// Writes the pack's tar, whose digest is the pack's content digest.
    pub(super) fn new(pack: &Pack) -> Result<PackLayer> {
        let mut writer = BufWriter::with_capacity(1 << 16, TemporaryWriter::create()?);
        let digest =
            pack.write_layer(&mut writer, PREFIX).map_err(|error| writer.get_ref().name(error))?;
        let (tar, size) = written(writer)?;
        Ok(PackLayer { tar, digest, diff_id: digest, size })
    }

    /// Makes the layer replace the directory `/service` of the layers below instead of merging with it: adds an opaque
    /// whiteout right after the directory's entry, so that tools which apply entries in order remove only what is below.
    /// The content digest stays.
    pub(super) fn replace_lower(&mut self) -> Result<()> {
        if self.replaces_lower() {
            return Ok(());
        }
        let (first, marker) = opaque_prefix(PREFIX)?;
        let mut tar = self.rewound()?;
        let mut start = vec![0; first.len()];
        tar.read_exact(&mut start).io("read", "the pack's tar")?;
        debug_assert_eq!(start, first);
        let file = TemporaryWriter::create()?;
        let mut writer = DigestWriter::new(BufWriter::with_capacity(1 << 16, file));
        for part in [&start, &marker] {
            writer.write_all(part).map_err(cannot_write)?;
        }
        io::copy(&mut tar, &mut writer).map_err(cannot_write)?;
        let (writer, diff_id, _) = writer.finish();
        (self.tar, self.size) = written(writer)?;
        self.diff_id = diff_id;
        Ok(())
    }

    /// Whether [`PackLayer::replace_lower`] was called.
    pub(super) fn replaces_lower(&self) -> bool {
        self.diff_id != self.digest
    }

    /// The content digest of the pack.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of the tar.
    pub(super) fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// The tar, for a sandbox that unpacks it.
    pub(super) fn tar(&self) -> Result<OwnedFd> {
        Ok(self.rewound()?.into())
    }

    /// The tar as a layer to unpack.
    pub(super) fn layer(&self, chain_id: Digest) -> Result<LayerSource> {
        Ok(LayerSource {
            blob: self.rewound()?,
            digest: self.diff_id,
            size: self.size,
            diff_id: self.diff_id,
            chain_id,
            note: None,
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
        Ok(NewLayer { writer, descriptor, diff_id: self.diff_id })
    }

    fn rewound(&self) -> Result<File> {
        let mut tar = self.tar.try_clone().io("open", "the pack's tar")?;
        tar.rewind().io("rewind", "the pack's tar")?;
        Ok(tar)
    }
}

/// Flushes `writer`; returns its file with the size in bytes.
fn written(writer: BufWriter<TemporaryWriter>) -> Result<(File, u64)> {
    let writer = writer.into_inner().map_err(|error| cannot_write(error.into_error()))?;
    let file = writer.into_file();
    let size = file.metadata().io("stat", "the pack's tar")?.len();
    Ok((file, size))
}
