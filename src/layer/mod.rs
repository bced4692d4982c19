//! Layers: reads, writes, unpacks and computes the tar archives that make up an image (image-spec, layer.md).
//!
//! These are functions over descriptors, independent of processes, the store and registries.

mod changes;
pub mod compare;
pub mod compress;
pub mod diff;
pub mod entry;
mod held;
pub mod index;
mod link;
pub mod meta;
pub mod path;
pub mod pax;
mod place;
pub mod read;
pub mod settings;
pub mod snapshot;
mod tree;
pub mod unpack;
pub mod verify;
pub mod write;
