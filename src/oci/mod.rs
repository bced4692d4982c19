//! The OCI image format: digests, references, media types, image configs, manifests, layouts.
//!
//! Pure data, independent of processes and the network.

pub mod config;
pub mod descriptor;
pub mod digest;
pub mod image;
pub mod json;
pub mod layout;
pub mod layout_writer;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod transport;

pub use config::{Config, History};
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestReader, DigestWriter};
pub use image::{Image, Layer, chain_ids};
pub use layout::Layout;
pub use layout_writer::LayoutWriter;
pub use manifest::{Document, Index, Manifest};
pub use platform::Platform;
pub use reference::Reference;
pub use transport::Transport;
