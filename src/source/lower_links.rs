//! Verifies the hard links of an image's layers to files of lower layers.
//!
//! A layer is verified while it streams, before those below it may have arrived. Only a layer with such links has to be
//! read again, together with those below; hardly any image has one.

use super::layer::Fetched;
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::layer::compress::{layer_decoder, zstd_permit};
use crate::layer::outline::Outline;
use crate::oci::{Descriptor, Digest, Image};
use crate::store::Store;

/// Verifies that the layers of an image can be unpacked on top of each other; each alone was verified before.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) for a hard link to a file that the layers below don't have;
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(super) fn check(image: &Image, fetched: &mut [Fetched], store: &Store) -> Result<()> {
    let chain_ids = image.chain_ids();
    let at = |fetched: &[Fetched], digest: Digest| {
        fetched.iter().position(|layer| layer.digest() == digest)
    };
    let below = |n: usize| n.checked_sub(1).map(|n| chain_ids[n]);
    let mut unknown = Vec::new();
    for (n, layer) in image.layers().iter().enumerate() {
        if let Some(at) = at(fetched, layer.descriptor.digest) {
            let note = fetched[at].verified;
            if note.needs_lower && (n == 0 || note.below != below(n)) {
                unknown.push((n, at));
            }
        }
    }
    let Some((last, _)) = unknown.last() else { return Ok(()) };
    let mut outline = Outline::of_image();
    for layer in &image.layers()[..=*last] {
        let digest = layer.descriptor.digest;
        let blob = match at(fetched, digest) {
            Some(at) => fetched[at].open(store)?,
            None => return Err(Error::bad_input(format!("the layer {digest} was not fetched"))),
        };
        add_layer(&mut outline, blob).context(format!("layer {digest}"))?;
    }
    for (n, at) in unknown {
        fetched[at].set_below(below(n));
    }
    Ok(())
}

/// Verifies that the layers of an image in the store can be unpacked on top of each other.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput), also for a damaged blob; [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn check_stored(image: &Image, store: &Store) -> Result<()> {
    let mut outline = Outline::of_image();
    for layer in image.layers() {
        let Descriptor { digest, .. } = layer.descriptor;
        add_layer(&mut outline, store.blob_reader(&layer.descriptor)?)
            .context(format!("layer {digest}"))?;
    }
    Ok(())
}

fn add_layer(outline: &mut Outline, blob: impl std::io::Read + 'static) -> Result<()> {
    interrupt::check()?;
    let (compression, mut tar) = layer_decoder(blob)?;
    let _permit = zstd_permit(compression);
    outline.add_layer(&mut tar).map(drop)
}
