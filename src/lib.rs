//! svp builds, sets up and runs *servicepacks*: directories of scripts that install, set up and run one
//! service.

pub mod error;
pub mod import;
pub mod layer;
pub mod oci;
pub mod pack;
pub mod progress;
pub mod registry;
pub mod rootfs;
pub mod source;
pub mod store;
