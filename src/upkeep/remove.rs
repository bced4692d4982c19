//! Taking an image away: its tag, its blobs, its unpacked layers and its secrets, as far as no other image
//! has them too.

use std::collections::HashSet;
use std::fs;

use crate::error::{IoContext, Result};
use crate::oci::Reference;
use crate::sandbox::{Sandbox, Unpacked};
use crate::service::unreached;
use crate::store::{Reach, Removed, Store};

/// Removes the image that `reference` names.
///
/// Its unpacked layers and its secrets go with its blobs; while another process uses the store, or if
/// another image is damaged, all but the tag stay.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if there is no such image,
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub fn remove(store: &mut Store, reference: &Reference) -> Result<Removed> {
    store.remove_image(reference, forget)
}

fn forget(store: &Store, reach: &Reach) -> Result<()> {
    for state in unreached(store, reach)? {
        fs::remove_file(&state).io("remove", &state)?;
    }
    let trees = store.root().join("trees");
    let mut layers = Sandbox::unpacked(&trees)?;
    let kept: HashSet<String> = reach.chain_ids.iter().map(Unpacked::key_of).collect();
    // Not only this image's: an earlier removal may have found the store in use.
    layers.retain(|tree| !tree.is_scratch() && !tree.is_among(&kept));
    if layers.is_empty() {
        return Ok(());
    }
    let sandbox = Sandbox::enter(&trees)?;
    // What another id map left may be out of reach: that is for prune.
    layers.retain(|tree| sandbox.holds(tree));
    sandbox.remove_unpacked(&layers)
}
