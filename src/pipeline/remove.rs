//! Taking an image away: its tag, its blobs, its unpacked layers and its secrets, as far as no other image
//! has them too.

use crate::error::{Kind, Result};
use crate::oci::Reference;
use crate::sandbox::Sandbox;
use crate::service::forget_unreached;
use crate::store::{Removed, Store};

/// Removes the image that `reference` names.
///
/// Its unpacked layers and its secrets go with its blobs; while another process uses the store, or if
/// another image is damaged, all but the tag stay.
///
/// # Errors
/// [`Kind::BadInput`] if there is no such image, [`Kind::Storage`].
pub fn remove(store: &mut Store, reference: &Reference) -> Result<Removed> {
    let removed = store.remove_image(reference)?;
    if removed.collected.is_some() {
        store.while_alone(|store| match forget(store) {
            // Another image is damaged, so what it needs isn't known.
            Err(error) if error.kind() == Kind::BadInput => Ok(()),
            other => other,
        })?;
    }
    Ok(removed)
}

fn forget(store: &Store) -> Result<()> {
    forget_unreached(store)?;
    let trees = store.root().join("trees");
    if !trees.exists() {
        return Ok(());
    }
    // Not only this image's: an earlier removal may have found the store in use.
    Sandbox::enter(&trees)?.keep_layers(&store.reachable_chain_ids()?)
}
