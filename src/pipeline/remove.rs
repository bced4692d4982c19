//! Taking an image away: its tag, its blobs, its unpacked layers and its secrets, as far as no other image
//! has them too.

use crate::error::{Kind, Result};
use crate::oci::{Digest, Reference};
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
    let record = store.resolve(reference)?;
    let chain_ids =
        store.load_image(&record.manifest).map(|image| image.chain_ids()).unwrap_or_default();
    let removed = store.remove_image(reference)?;
    if removed.collected.is_some() {
        store.while_alone(|store| match forget(store, &chain_ids) {
            // Another image is damaged, so what it needs isn't known.
            Err(error) if error.kind() == Kind::BadInput => Ok(()),
            other => other,
        })?;
    }
    Ok(removed)
}

fn forget(store: &Store, chain_ids: &[Digest]) -> Result<()> {
    forget_unreached(store)?;
    let kept = store.reachable_chain_ids()?;
    let gone: Vec<Digest> = chain_ids.iter().filter(|id| !kept.contains(id)).copied().collect();
    let trees = store.root().join("trees");
    if gone.is_empty() || !trees.exists() {
        return Ok(());
    }
    Sandbox::enter(&trees)?.remove_layers(&gone)
}
