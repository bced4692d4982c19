//! Reading a layer's blob, which is what its digests say or nothing.

use std::fs::File;
use std::io::Read;

use crate::error::{Context, Error, Result};
use crate::layer::compress::decoder;
use crate::oci::media_type::Compression;
use crate::oci::{Digest, DigestReader};

/// Gives `consume` the uncompressed tar of `blob`, and fails after it unless the blob's digest and size and the
/// tar's diff ID are right: until then nothing that was read counts.
///
/// # Errors
/// `BadInput` for a blob that is damaged or another than it must be; `Storage` if it can't be read; what
/// `consume` fails with.
pub fn read_verified<T>(
    blob: File,
    (digest, size): (Digest, u64),
    compression: Compression,
    diff_id: Digest,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let blob = DigestReader::expecting(blob, digest, Some(size));
    let name = format!("layer {digest}");
    let tar = decoder(blob, compression).context(&name)?;
    let mut tar = DigestReader::expecting(tar, diff_id, None);
    let consumed = consume(&mut tar).context(&name)?;
    tar.drain().map_err(|error| match error.raw_os_error() {
        Some(_) => Error::io("read", &name, error),
        None => Error::bad_input(name.clone()).source(error),
    })?;
    Ok(consumed)
}
