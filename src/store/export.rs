//! Writes an image of the store to an OCI image layout or an archive.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::Mode;

use super::Store;
use crate::atomic_file::AtomicFile;
use crate::error::{Context, Error, IoContext, Kind, Result};
use crate::interrupt;
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::write::TarWriter;
use crate::oci::layout::archive_files;
use crate::oci::{Descriptor, Document, LayoutWriter, Manifest, Platform, Reference};

/// The format of an image archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout.
    Oci,
    /// The format of `docker save`.
    Docker,
}

impl fmt::Display for ArchiveFormat {
    /// Formats as the transport's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ArchiveFormat::Oci => "oci-archive",
            ArchiveFormat::Docker => "docker-archive",
        })
    }
}

impl Store {
    /// Writes the image with the manifest `descriptor` into the layout at `dir`, as `reference`; returns the number
    /// of other names in the layout. Leaves the layout unchanged on failure.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if `dir` is neither empty nor a layout, or a blob
    /// of the image is missing or damaged; [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn save_to_layout(
        &self,
        descriptor: &Descriptor,
        dir: &Path,
        reference: &Reference,
    ) -> Result<usize> {
        let mut writer = LayoutWriter::begin(dir)?;
        let write = |writer: &mut LayoutWriter| -> Result<()> {
            for blob in self.image_blobs(descriptor)? {
                writer.put_blob(&blob, Interruptible(self.open_blob(&blob.digest)?))?;
            }
            Ok(())
        };
        write(&mut writer)
            .map_err(interrupt::or_interrupted)
            .context(format!("can't write {reference} to {}", dir.display()))?;
        let others = writer.other_names(descriptor, reference)?;
        writer.commit(descriptor, reference)?;
        Ok(others)
    }

    /// Writes the image with the manifest `descriptor` to the archive `file`, as `reference`. Replaces an existing
    /// file atomically; writes directly to a device or pipe.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if a blob of the image is missing or damaged;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn save_as(
        &self,
        format: ArchiveFormat,
        descriptor: &Descriptor,
        file: &Path,
        reference: &Reference,
    ) -> Result<()> {
        let special = fs::metadata(file).is_ok_and(|there| !there.is_file() && !there.is_dir());
        let named = |error: Error| match error.kind() {
            Kind::Storage => error.context(format!("can't write {}", file.display())),
            _ => error,
        };
        if special {
            let mut output = File::options().write(true).open(file).io("open", file)?;
            return self.write_as(format, descriptor, &mut output, reference).map_err(named);
        }
        let mut output = AtomicFile::create(file, Mode::from_raw_mode(0o666))?;
        self.write_as(format, descriptor, &mut output, reference).map_err(named)?;
        output.finish()
    }

    /// Writes an archive to `output`.
    ///
    /// # Errors
    /// As [`Store::save_as`].
    pub fn write_as(
        &self,
        format: ArchiveFormat,
        descriptor: &Descriptor,
        output: &mut dyn Write,
        reference: &Reference,
    ) -> Result<()> {
        match format {
            ArchiveFormat::Oci => self.write_archive(descriptor, output, reference),
            ArchiveFormat::Docker => self.write_docker_archive(descriptor, output, reference),
        }
    }

    /// Writes an archive of a layout to `output`. Output is reproducible.
    ///
    /// # Errors
    /// As [`Store::save_as`].
    pub fn write_archive(
        &self,
        descriptor: &Descriptor,
        output: &mut dyn Write,
        reference: &Reference,
    ) -> Result<()> {
        let mut blobs = self.image_blobs(descriptor)?;
        blobs.sort_by_key(|blob| blob.digest);
        let mut tar = TarWriter::new(io::BufWriter::with_capacity(128 << 10, output));
        for dir in ["blobs/", "blobs/sha256/"] {
            tar.append(&Entry::new(dir, EntryKind::Directory, 0o755), &mut io::empty())?;
        }
        let mut file = |name: String, size: u64, content: &mut dyn Read| {
            let entry = Entry { size, ..Entry::new(name, EntryKind::File, 0o644) };
            tar.append(&entry, content)
        };
        for blob in &blobs {
            let mut content = Interruptible(self.blob_reader(blob)?);
            file(format!("blobs/sha256/{}", blob.digest.hex()), blob.size, &mut content)
                .map_err(|error| interrupt::or_interrupted(self.explain(error, blob)))?;
        }
        for (name, content) in archive_files(descriptor, reference) {
            file(name.to_owned(), content.len() as u64, &mut &content[..])?;
        }
        tar.finish()?.flush().io("write", "the archive")
    }

    /// Turns a read error of a damaged blob from a storage error into one about the blob.
    fn explain(&self, error: Error, blob: &Descriptor) -> Error {
        let cause = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<io::Error>());
        let damaged = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData);
        if damaged { self.damaged(&blob.digest) } else { error }
    }

    /// Lists all parts of an image, each once: manifest, config and layers; for an index, itself and then all parts
    /// of its images.
    ///
    /// # Errors
    /// As [`Store::load_manifest`]; also if the store lacks an entry of an index.
    pub fn image_blobs(&self, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
        let mut blobs = vec![descriptor.clone()];
        match self.load_document(descriptor)? {
            Document::Manifest(manifest) => {
                blobs.push(manifest.config);
                blobs.extend(manifest.layers);
            }
            Document::Index(index) => {
                for entry in &index.manifests {
                    let manifest = self.manifest_of_index(entry)?;
                    blobs.extend([entry.clone(), manifest.config]);
                    blobs.extend(manifest.layers);
                }
            }
        }
        let mut seen = HashSet::new();
        blobs.retain(|blob| seen.insert(blob.digest));
        Ok(blobs)
    }

    /// Returns the manifest that an entry of an index names.
    fn manifest_of_index(&self, entry: &Descriptor) -> Result<Manifest> {
        let platform = entry.platform.as_ref().map_or("no platform".into(), Platform::to_string);
        let lacking = |error: Error| match self.has_blob(&entry.digest) {
            true => error,
            false => error.hint("create an index of the images in the store with `svp index`"),
        };
        match self
            .load_document(entry)
            .map_err(lacking)
            .context(format!("{platform} of the index"))?
        {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(Error::bad_input("nested index")),
        }
    }
}

/// A reader that fails once svp is interrupted.
pub(super) struct Interruptible<R>(pub(super) R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        interrupt::check().map_err(io::Error::other)?;
        self.0.read(buf)
    }
}
