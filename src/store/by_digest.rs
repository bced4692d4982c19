//! Finds images by their digests, whole or shortened: those of tags, and those that only services have.

use super::{Store, TagRecord};
use crate::error::{Error, Result};
use crate::oci::{Digest, Reference};

/// Finds the only image whose digest begins with the digits of `reference`.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if several digests do.
pub(super) fn find(store: &Store, reference: &Reference) -> Result<Option<TagRecord>> {
    let Some(prefix) = reference.digest_prefix() else { return Ok(None) };
    let mut found = all(store)?;
    found.retain(|record| record.manifest.digest.hex().starts_with(prefix));
    // The tags of one image are neighbours, and images of services follow.
    let first = found.first().map(|record| record.manifest.digest);
    let mut digests: Vec<Digest> = found.iter().map(|record| record.manifest.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    if digests.len() > 1 {
        let names = digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!(
            "several images have a digest that begins with {prefix}"
        ))
        .hint(format!("give more digits: {names}")));
    }
    Ok(found.into_iter().find(|record| Some(record.manifest.digest) == first))
}

/// Finds the image `digest` that has the name of `reference`.
///
/// # Errors
/// As [`Store::tags`].
pub(super) fn find_exact(
    store: &Store,
    reference: &Reference,
    digest: Digest,
) -> Result<Option<TagRecord>> {
    for record in all(store)? {
        if record.manifest.digest == digest && record.reference()?.name() == reference.name() {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Lists the images of all tags, sorted by name, then those of all services.
fn all(store: &Store) -> Result<Vec<TagRecord>> {
    let mut found = store.tags()?.collect::<Result<Vec<_>>>()?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    for (_, pin) in store.service_pins()? {
        // A damaged service has no image that could be found.
        let Ok(pin) = pin else { continue };
        let digest = pin.manifest.digest;
        let name = match pin.image.parse::<Reference>() {
            Ok(name) => name.at_digest(digest).to_string(),
            Err(_) => format!("image@{digest}"),
        };
        found.push(TagRecord { name, manifest: pin.manifest, created: None });
    }
    Ok(found)
}
