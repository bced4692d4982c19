//! svp builds, sets up and runs *servicepacks*: directories of scripts that install, set up and run one
//! service. docs/architecture.md draws this map with its reasons.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command line; only it prints |
//! | [`pipeline`] | `svp build` and `svp setup` as recipes |
//! | [`upkeep`] | keeping the store in order: removing, pruning, measuring, checking |
//! | [`service`] | instances: their state, running them |
//! | [`pack`] | servicepacks: opening, asking, checking, writing as a layer |
//! | [`source`], [`registry`], [`import`] | where images come from |
//! | [`layer`] | unpacking, diffing, writing, compressing layers |
//! | [`store`] | blobs, tags, staging |
//! | [`sandbox`] | namespaces: unpack, run, diff and remove in them |
//! | [`secret`], [`config`] | secrets; the configuration file |
//! | [`oci`], [`rootfs`] | the image format; paths inside a container's root |
//! | [`progress`], [`error`], [`interrupt`] | telling, failing, stopping |

pub mod atomic_file;
mod channel;
pub mod cli;
pub mod config;
pub mod error;
pub mod import;
pub mod interrupt;
pub mod layer;
pub mod oci;
pub mod pack;
pub mod pipeline;
pub mod progress;
pub mod registry;
mod remove;
pub mod rootfs;
pub mod sandbox;
pub mod secret;
pub mod service;
pub mod source;
pub mod store;
mod sys;
pub mod upkeep;
