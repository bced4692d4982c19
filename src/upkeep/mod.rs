//! Keeping the store in order: removing, pruning, measuring, checking.
//!
//! | file | what it does |
//! |---|---|
//! | `inventory` | all that the store holds, and whether something needs it |
//! | `remove` | taking an image away with all that only it has |

mod inventory;
mod remove;

pub use inventory::{ImageUse, Inventory, Item, ItemKind, images, inventory, prune};
pub use remove::remove;
