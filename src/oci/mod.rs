//! The OCI image format: digests, references, media types, image config and manifest, image layouts.
//!
//! Pure data: nothing here knows of processes or of the network.

pub mod digest;
pub mod media_type;
pub mod reference;

pub use digest::{Digest, DigestReader, DigestWriter};
pub use reference::Reference;
