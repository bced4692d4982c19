//! Blobs: content under its own digest, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tempfile::NamedTempFile;

use super::{Store, open_file, sync_dir};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Descriptor, Digest, DigestReader, DigestWriter};

impl Store {
    /// Begins a blob.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        let staging = self.shared_staging()?;
        let file = NamedTempFile::new_in(staging).io("make a file in", staging)?;
        Ok(BlobWriter { inner: DigestWriter::new(file), blobs: self.blobs_dir() })
    }

    /// Stores `bytes` and gives their digest.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).io("write a blob to", &self.root)?;
        Ok(writer.finish()?.0)
    }

    /// Where the blob `digest` is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir().join(digest.hex())
    }

    /// Whether the store has the blob. Its content is not looked at.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_size(digest).is_some()
    }

    /// The stored size of a blob, in bytes.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        let metadata = fs::symlink_metadata(self.blob_path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// All blobs with the space that each takes on the disk, in bytes; in no order. What isn't named as a blob
    /// is passed over.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn blobs(&self) -> Result<impl Iterator<Item = Result<(Digest, u64)>> + use<>> {
        let dir = self.blobs_dir();
        let entries = fs::read_dir(&dir).io("list", &dir)?;
        Ok(entries.filter_map(move |entry| {
            let found = entry.and_then(|entry| match digest_named(&entry.file_name()) {
                None => Ok(None),
                Some(digest) => Ok(Some((digest, entry.metadata()?.blocks() * 512))),
            });
            found.io("list", &dir).transpose()
        }))
    }

    /// Opens a blob. The content is not verified; see [`Store::blob_reader`].
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the store lacks it, or it is no file.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        open_file(&self.blob_path(digest))?.ok_or_else(|| {
            Error::bad_input(format!("the store lacks the blob {digest}"))
                .hint("pull, import or build the image again")
        })
    }

    /// A reader of the blob that fails at its end unless size and digest are as the descriptor says.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the store lacks it.
    pub fn blob_reader(&self, descriptor: &Descriptor) -> Result<DigestReader<File>> {
        let file = self.open_blob(&descriptor.digest)?;
        Ok(DigestReader::expecting(file, descriptor.digest, Some(descriptor.size)))
    }

    /// The verified content of a small blob.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the store lacks it, it has more than `max`
    /// bytes, or it isn't what its digest says.
    pub fn read_blob_bounded(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        // Room for a usual one, so that it takes one read.
        let mut bytes = Vec::with_capacity(8192);
        io::Read::read_to_end(&mut io::Read::take(file, max + 1), &mut bytes)
            .io("read", self.blob_path(digest))?;
        if bytes.len() as u64 > max {
            return Err(Error::bad_input(format!("the blob {digest} has more than {max} bytes")));
        }
        if Digest::of(&bytes) != *digest {
            return Err(self.damaged(digest));
        }
        Ok(bytes)
    }

    /// The error for a blob whose content isn't what its digest says.
    pub fn damaged(&self, digest: &Digest) -> Error {
        Error::bad_input(format!(
            "the blob {digest} is damaged: {} has another digest",
            self.blob_path(digest).display()
        ))
        .hint(
            "remove that file, then pull, import or build the image again; `svp check --store` finds \
             whatever else is damaged",
        )
    }

    pub(super) fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }
}

/// A blob in the making. Dropped, it is gone; only finishing makes it a blob.
///
/// Written through [`Write`], it is hashed on the way. A stage that writes to [`BlobWriter::as_file`]
/// computes the digest itself, and [`BlobWriter::adopt_verified`] takes its word.
#[derive(Debug)]
pub struct BlobWriter {
    inner: DigestWriter<NamedTempFile>,
    blobs: PathBuf,
}

impl BlobWriter {
    /// Makes what was written a blob: fsync, rename, fsync of the directory. A blob that is there already
    /// is replaced by the same content, so that a damaged one heals.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn finish(self) -> Result<(Digest, u64)> {
        let (file, digest, size) = self.inner.finish();
        publish(file, &self.blobs, digest)?;
        Ok((digest, size))
    }

    /// As [`BlobWriter::finish`], and fails unless digest and size are as expected.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if they aren't.
    pub fn finish_expecting(self, digest: Digest, size: u64) -> Result<()> {
        let (file, found, length) = self.inner.finish();
        if length != size {
            return Err(Error::bad_input(format!(
                "the blob {digest} has {length} bytes, not {size}"
            )));
        }
        if found != digest {
            return Err(Error::bad_input(format!("the blob {digest} has the digest {found}")));
        }
        publish(file, &self.blobs, digest)
    }

    /// The file, for one who writes to it directly. Don't mix with [`Write`].
    pub fn as_file(&self) -> &File {
        self.inner.get_ref().as_file()
    }

    /// Makes what was written to [`BlobWriter::as_file`] a blob, under the digest that its writer
    /// computed.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the file hasn't `size` bytes.
    pub fn adopt_verified(self, digest: Digest, size: u64) -> Result<()> {
        let (file, ..) = self.inner.finish();
        let length = file.as_file().metadata().io("read", file.path())?.len();
        if length != size {
            let error = io::Error::other(format!("it has {length} bytes, not {size}"));
            return Err(Error::io("finish", file.path(), error));
        }
        publish(file, &self.blobs, digest)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The digest whose hexadecimal form is `name`.
pub(super) fn digest_named(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}

fn publish(file: NamedTempFile, blobs: &std::path::Path, digest: Digest) -> Result<()> {
    file.as_file().sync_all().io("sync", file.path())?;
    let target = blobs.join(digest.hex());
    file.persist(&target).map_err(|error| Error::io("write", &target, error.error))?;
    sync_dir(blobs)
}
