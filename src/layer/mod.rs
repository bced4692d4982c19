//! Layers: reads, writes, unpacks and computes the tar archives that make up an image (image-spec, layer.md).
//!
//! These are functions over descriptors, independent of processes, the store and registries.

mod acl;
pub mod compare;
pub mod compress;
pub mod diff;
pub mod entry;
pub mod file_tree;
mod header;
pub mod meta;
pub mod outline;
pub mod path;
pub mod pax;
pub mod read;
pub mod settings;
pub mod snapshot;
pub mod sparse;
pub mod unpack;
pub mod verify;
pub mod write;
