//! Taking an image away: its tag, its blobs, its unpacked layers and its secrets, as far as no other image
//! has them too.

use std::collections::HashSet;
use std::fs;

use crate::error::{IoContext, Kind, Result};
use crate::oci::Reference;
use crate::sandbox::{CachedTree, Sandbox};
use crate::service::unreferenced_states;
use crate::store::{Marked, Removed, Store};

/// Removes the images that `references` name.
///
/// Their unpacked layers and secrets go with their blobs; while another process uses the store, or if
/// another image is damaged, all but the tags stay.
///
/// # Errors
/// [`Kind::BadInput`] if there is no such image, and then nothing is removed; [`Kind::Storage`].
pub fn remove(store: &mut Store, references: &[Reference]) -> Result<Removed> {
    store.remove_images(references, forget)
}

fn forget(store: &Store, reach: &Marked) -> Result<()> {
    for state in unreferenced_states(store, reach)? {
        fs::remove_file(&state).io("remove", &state)?;
    }
    let trees = store.root().join("trees");
    let mut layers = Sandbox::cached_trees(&trees)?;
    layers.retain(|tree| !tree.is_build_rootfs());
    if layers.is_empty() {
        return Ok(());
    }
    let reach = match store.mark().and_then(Marked::whole) {
        // Another image's config is damaged, so what it unpacked isn't known: that is for prune.
        Err(error) if error.kind() == Kind::BadInput => return Ok(()),
        other => other?,
    };
    let kept: HashSet<String> = reach.chain_ids.iter().map(CachedTree::key_of).collect();
    // Not only these images': an earlier removal may have found the store in use.
    layers.retain(|tree| !tree.is_among(&kept));
    if layers.is_empty() {
        return Ok(());
    }
    let sandbox = Sandbox::create(&trees)?;
    // What another id map left may be out of reach: that is for prune.
    layers.retain(|tree| sandbox.holds(tree));
    sandbox.remove_cached(&layers)
}
