//! Keeping the store in order: removing, pruning, measuring, checking.
//!
//! | file | what it does |
//! |---|---|
//! | `fsck` | whether all in the store is as it must be |
//! | `inventory` | all that the store holds, and whether something needs it |
//! | `remove` | taking an image away with all that only it has |

mod fsck;
mod inventory;
mod remove;

pub use fsck::{Fault, check_store};
pub use inventory::{
    ImageUse, Inventory, Item, ItemKind, Pruning, give_up, images, inventory, prune,
};
pub use remove::remove;
