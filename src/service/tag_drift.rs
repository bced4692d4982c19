//! Whether the tag of a service's image names another image by now.

use std::path::Path;

use crate::oci::{Digest, Reference};
use crate::service::record::Record;
use crate::store::Store;

/// Returns the digest of the image that the service's tag names now; `None` if the tag is gone or damaged, or the
/// service was created from a digest.
pub(crate) fn tagged_digest(root: &Path, record: &Record) -> Option<Digest> {
    let name: Reference = record.image.parse().ok()?;
    if name.digest().is_some() {
        return None;
    }
    let tag = Store::peek_tag(root, &name).ok().flatten()?;
    Some(tag.manifest.digest)
}

/// Whether the service's tag names another image than the service has.
pub(crate) fn is_outdated(tagged: Option<Digest>, record: &Record) -> bool {
    tagged.is_some_and(|digest| digest != record.manifest.digest)
}
