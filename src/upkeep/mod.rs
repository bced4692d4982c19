//! Store maintenance: removal, pruning, disk use, fsck.
//!
//! | file | purpose |
//! |---|---|
//! | `fsck` | verifies the whole store |
//! | `inventory` | lists the content of the store with what needs it; prunes |
//! | `remove` | removes an image with everything that no other image shares |

mod fsck;
mod inventory;
mod remove;

pub use fsck::{Fault, check_store};
pub use inventory::{
    ImageUse, Inventory, Item, ItemKind, Pruning, give_up, images, inventory, prune,
};
pub use remove::remove;
