//! Removes an image: its tag, and the blobs, unpacked layers and secrets that no other image shares.

use std::collections::HashSet;
use std::fs;

use crate::error::{IoContext, Kind, Result};
use crate::oci::Reference;
use crate::sandbox::{CachedTree, Sandbox};
use crate::service::unreferenced_states;
use crate::store::{Marked, Removed, Store};

/// Removes the images that `references` name.
///
/// Unpacked layers and secrets are removed along with the blobs; if another process uses the store or another
/// image is damaged, only the tags are removed.
///
/// # Errors
/// [`Kind::BadInput`] for a missing image, without removing anything; [`Kind::Storage`].
pub(crate) fn remove(store: &mut Store, references: &[Reference]) -> Result<Removed> {
    store.remove_images(references, forget)
}

/// Removes the unneeded secrets and unpacked layers.
fn forget(store: &Store, marked: &Marked) -> Result<()> {
    for state in unreferenced_states(store, marked)? {
        fs::remove_file(&state).io("remove", &state)?;
    }
    let trees = store.layout().trees();
    let mut layers = Sandbox::cached_trees(&trees)?;
    layers.retain(|tree| !tree.is_build_rootfs());
    if layers.is_empty() {
        return Ok(());
    }
    let marked = match store.mark().and_then(Marked::whole) {
        // Another image's config is damaged, so its layers are unknown: leave them to prune.
        Err(error) if error.kind() == Kind::BadInput => return Ok(()),
        other => other?,
    };
    let kept: HashSet<String> = marked.chain_ids.iter().map(CachedTree::key_of).collect();
    // Remove all unneeded layers, not only those of these images: an earlier removal may have found the store in use.
    layers.retain(|tree| !tree.is_among(&kept));
    if layers.is_empty() {
        return Ok(());
    }
    let sandbox = Sandbox::create(&trees)?;
    // Trees of another id map may be inaccessible: leave them to prune.
    layers.retain(|tree| sandbox.holds(tree));
    sandbox.remove_cached(&layers)
}
