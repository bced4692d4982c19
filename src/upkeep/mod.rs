//! Store maintenance: removal, pruning, disk use, fsck.
//!
//! | file | purpose |
//! |---|---|
//! | `fsck` | verifies the whole store |
//! | `inventory` | lists the items in the store, and whether each is needed |
//! | `prune` | removes unneeded items |
//! | `remove` | removes an image and everything that only this image uses |

mod fsck;
mod inventory;
mod prune;
mod remove;

pub(crate) use fsck::{Fault, check_store};
pub(crate) use inventory::{ImageUse, Inventory, ItemKind, images, inventory};
pub(crate) use prune::{PruneVolumes, Pruning, mark_for_removal, prune};
pub(crate) use remove::remove;
