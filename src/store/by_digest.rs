//! Finds the image that a reference names: by its tag, or by its digest, whole or shortened, among the images of tags and
//! those that only services have.

use super::{Store, TagRecord};
use crate::error::{Error, Result};
use crate::oci::{Digest, Reference};

impl Store {
    /// Finds the image that `reference` names: by its digest if it has one, else by its tag, else by the digits of a
    /// digest if it is one (`sha256:HEX` or `HEX`, also shortened). A digest finds the images of tags, the first of
    /// several, and of services. An image that only services have is named `REPO@DIGEST`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the store has no such image;
    /// [`Kind::Usage`](crate::error::Kind::Usage) if several digests have these digits.
    pub fn resolve(&self, reference: &Reference) -> Result<TagRecord> {
        let found = match reference.digest() {
            None => match self.tag(reference)? {
                None => find(self, reference)?,
                found => found,
            },
            Some(digest) => find_exact(self, reference, digest)?,
        };
        found.ok_or_else(|| {
            let shown = reference.digest().map_or(reference.tagged(), |_| reference.to_string());
            let error = Error::bad_input(format!("the store has no image {shown}"));
            if reference.as_digest().is_some() {
                return error.hint("list the images with `svp images`");
            }
            let far = reference.clone().with_default_registry();
            error.hint(format!(
                "list the images with `svp images`; write docker://{far} for an image in a registry"
            ))
        })
    }
}

/// Finds the only image whose digest begins with the digits of `reference`.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if several digests do.
fn find(store: &Store, reference: &Reference) -> Result<Option<TagRecord>> {
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
fn find_exact(store: &Store, reference: &Reference, digest: Digest) -> Result<Option<TagRecord>> {
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
