//! Store maintenance: removal, pruning, disk use, fsck.
//!
//! | file | purpose |
//! |---|---|
//! | `fsck` | verifies the whole store |
//! | `inventory` | lists the content of the store with what needs it |
//! | `prune` | removes what nothing needs |
//! | `remove` | removes an image with everything that no other image shares |

mod fsck;
mod inventory;
mod prune;
mod remove;

pub(crate) use fsck::{Fault, check_store};
pub(crate) use inventory::{ImageUse, Inventory, ItemKind, images, inventory};
pub(crate) use prune::{Pruning, mark_for_removal, prune};
pub(crate) use remove::remove;
