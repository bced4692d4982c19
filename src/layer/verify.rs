//! Reads a layer's blob and verifies its digests.

use std::fs::File;
use std::io::Read;

use crate::error::{Context, Error, Result};
use crate::layer::compress::layer_decoder;
use crate::oci::{Digest, DigestReader};

/// Passes the uncompressed tar of `blob` to `consume`, then fails unless the blob's digest and size and the tar's
/// diff ID match. Don't use anything read before that.
///
/// # Errors
/// `BadInput` for a damaged or different blob; `Storage` if it can't be read; the errors of `consume`.
pub fn read_verified<T>(
    blob: File,
    (digest, size): (Digest, u64),
    diff_id: Digest,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let blob = DigestReader::expecting(blob, digest, Some(size));
    let name = format!("layer {digest}");
    let (_, tar) = layer_decoder(blob).context(&name)?;
    let mut tar = DigestReader::expecting(tar, diff_id, None);
    let consumed = consume(&mut tar).context(&name)?;
    tar.drain().map_err(|error| match error.raw_os_error() {
        Some(_) => Error::io("read", &name, error),
        None => Error::bad_input(name.clone()).source(error),
    })?;
    Ok(consumed)
}
