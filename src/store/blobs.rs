//! Blobs: content stored under its digest, published atomically.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tempfile::NamedTempFile;

use super::{Store, open_file, sync_dir};
use crate::error::{Error, IoContext, Result};
use crate::layer::compress::{detect, read_full};
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Digest, DigestReader, DigestWriter};

impl Store {
    /// Creates a blob writer.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        let staging = self.shared_staging()?;
        let file = NamedTempFile::new_in(staging).io("create a file in", staging)?;
        Ok(BlobWriter { inner: DigestWriter::new(file), blobs: self.layout.sha256() })
    }

    /// Stores `bytes` as a blob and returns the digest.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).io("write a blob to", self.root())?;
        Ok(writer.finish()?.0)
    }

    /// Returns the path of the blob `digest`, whether it exists or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout.blob(digest)
    }

    /// Returns whether the blob exists; its content is not verified.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_size(digest).is_some()
    }

    /// Returns the stored size of a blob, in bytes.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        let metadata = fs::symlink_metadata(self.blob_path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Iterates over all blobs with their disk use in bytes, in no particular order. Skips files not named as
    /// blobs.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn blobs(&self) -> Result<impl Iterator<Item = Result<(Digest, u64)>> + use<>> {
        let dir = self.layout.sha256();
        let entries = fs::read_dir(&dir).io("list", &dir)?;
        Ok(entries.filter_map(move |entry| {
            let found = entry.and_then(|entry| match digest_named(&entry.file_name()) {
                None => Ok(None),
                Some(digest) => Ok(Some((digest, entry.metadata()?.blocks() * 512))),
            });
            found.io("list", &dir).transpose()
        }))
    }

    /// Returns the compression of a layer's blob, by its first bytes.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the blob is missing.
    pub fn blob_compression(&self, digest: &Digest) -> Result<Compression> {
        let mut head = [0; 6];
        let mut file = self.open_blob(digest)?;
        let length = read_full(&mut file, &mut head).io("read", self.blob_path(digest))?;
        Ok(detect(&head[..length]))
    }

    /// Reads a blob and returns whether its content differs from its digest or size.
    pub fn is_damaged(&self, blob: &Descriptor) -> bool {
        let differs = |error: io::Error| {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        };
        self.blob_reader(blob).is_ok_and(|reader| reader.drain().is_err_and(differs))
    }

    /// Opens a blob without verifying its content; see [`Store::blob_reader`].
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the blob is missing or not a regular file.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        open_file(&self.blob_path(digest))?.ok_or_else(|| {
            Error::bad_input(format!("the store lacks the blob {digest}"))
                .hint("pull, import or build the image again")
        })
    }

    /// Returns a reader that fails at the end of the blob unless its size and digest match the descriptor.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the blob is missing.
    pub fn blob_reader(&self, descriptor: &Descriptor) -> Result<DigestReader<File>> {
        let file = self.open_blob(&descriptor.digest)?;
        Ok(DigestReader::expecting(file, descriptor.digest, Some(descriptor.size)))
    }

    /// Reads a small blob and verifies its digest.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the blob is missing, larger than `max` bytes, or does
    /// not match its digest.
    pub fn read_blob_bounded(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        // Large enough for a typical blob, so that one read suffices.
        let mut bytes = Vec::with_capacity(8192);
        io::Read::read_to_end(&mut io::Read::take(file, max + 1), &mut bytes)
            .io("read", self.blob_path(digest))?;
        if bytes.len() as u64 > max {
            return Err(Error::bad_input(format!("the blob {digest} is larger than {max} bytes")));
        }
        if Digest::of(&bytes) != *digest {
            return Err(self.damaged(digest));
        }
        Ok(bytes)
    }

    /// Creates the error for a blob that does not match its digest. Forgets what was verified of it, so that the next
    /// pull replaces it.
    pub fn damaged(&self, digest: &Digest) -> Error {
        self.forget_layer_note(digest);
        Error::bad_input(format!(
            "the blob {digest} is damaged: {} has another digest",
            self.blob_path(digest).display()
        ))
        .hint(
            "pull, import or build the image again, which replaces that file; `svp check --store` lists \
             all damage",
        )
    }
}

/// A blob being written. It becomes a blob only when finished; dropped, it is removed.
///
/// Data written through [`Write`] is hashed on the way. A stage that writes to [`BlobWriter::as_file`] computes
/// the digest itself, and [`BlobWriter::adopt_verified`] trusts it.
#[derive(Debug)]
pub struct BlobWriter {
    inner: DigestWriter<NamedTempFile>,
    blobs: PathBuf,
}

impl BlobWriter {
    /// Publishes the data as a blob: fsync, rename, fsync of the directory. Replaces an existing blob with the
    /// same content, which repairs a damaged one.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn finish(self) -> Result<(Digest, u64)> {
        let (file, digest, size) = self.inner.finish();
        publish(file, &self.blobs, digest)?;
        Ok((digest, size))
    }

    /// As [`BlobWriter::finish`], but fails unless digest and size match.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) on a mismatch.
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

    /// Returns the file, for direct writes. Don't mix these with [`Write`].
    pub fn as_file(&self) -> &File {
        self.inner.get_ref().as_file()
    }

    /// Publishes the data written to [`BlobWriter::as_file`] as a blob, under the digest that its writer computed.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the file's size is not `size`.
    pub fn adopt_verified(self, digest: Digest, size: u64) -> Result<()> {
        let (file, ..) = self.inner.finish();
        let length = file.as_file().metadata().io("read", file.path())?.len();
        if length != size {
            let error = io::Error::other(format!("the file has {length} bytes, not {size}"));
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

/// Returns the digest whose hexadecimal form is `name`.
pub(super) fn digest_named(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}

fn publish(file: NamedTempFile, blobs: &std::path::Path, digest: Digest) -> Result<()> {
    file.as_file().sync_all().io("sync", file.path())?;
    let target = blobs.join(digest.hex());
    file.persist(&target).map_err(|error| Error::io("write", &target, error.error))?;
    sync_dir(blobs)
}
