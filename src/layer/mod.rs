//! Layers: reading, writing, unpacking and computing the tar archives that an image is made of
//! (image-spec, layer.md).
//!
//! Functions over descriptors: nothing here knows of processes, stores or registries.

pub mod compress;
pub mod entry;
pub mod path;
pub mod pax;
pub mod read;
pub mod write;
