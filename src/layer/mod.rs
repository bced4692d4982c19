//! Layers: reading, writing, unpacking and computing the tar archives that an image is made of
//! (image-spec, layer.md).
//!
//! Functions over descriptors: nothing here knows of processes, stores or registries.

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
