//! svp builds, sets up and runs *servicepacks*: directories of scripts that install, configure and run one
//! service. docs/architecture.md draws this map with its reasons.
//!
//! | module | purpose |
//! |---|---|
//! | [`cli`] | the command line; the only module that prints |
//! | [`pipeline`] | the steps of `svp build` and `svp setup` |
//! | [`upkeep`] | store maintenance: removal, pruning, disk use, fsck |
//! | [`service`] | instances: their state, running them |
//! | [`pack`] | servicepacks: opening, querying, linting, writing as a layer |
//! | [`source`], [`registry`], [`import`] | image sources |
//! | [`layer`] | unpacking, diffing, writing, compressing layers |
//! | [`store`] | blobs, tags, staging |
//! | [`sandbox`] | namespaces, and the stages that unpack, run, diff and remove in them |
//! | [`secret`], [`config`] | secrets; the configuration file |
//! | [`oci`], [`rootfs`] | the image format; paths inside a container's root |
//! | [`progress`], [`error`], [`interrupt`] | progress events, errors, interruption |
//! | `diagnostics` | log lines about what svp and its stages do |

pub mod atomic_file;
mod channel;
pub mod cli;
pub mod config;
mod diagnostics;
pub mod error;
pub mod import;
pub mod interrupt;
pub mod layer;
pub mod oci;
pub mod pack;
pub mod pipeline;
pub mod progress;
mod random_name;
pub mod registry;
mod remove_tree;
pub mod rootfs;
pub mod sandbox;
pub mod secret;
pub mod service;
pub mod source;
pub mod store;
mod sys;
pub mod upkeep;
