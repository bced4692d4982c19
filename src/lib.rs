//! svp builds, sets up and runs *servicepacks*: directories of scripts that install, configure and run one
//! service. docs/architecture.md explains this structure.
//!
//! | module | purpose |
//! |---|---|
//! | `cli` | the command line; the only module that prints |
//! | `pipeline` | the steps of `svp build` and `svp setup` |
//! | `upkeep` | store maintenance: removal, pruning, disk use, fsck |
//! | `service` | instances: their state, running them |
//! | [`pack`] | servicepacks: opening, querying, linting, writing as a layer |
//! | [`source`], [`registry`], [`import`] | image sources |
//! | [`layer`] | unpacking, diffing, writing, compressing layers |
//! | [`store`] | blobs, tags, staging |
//! | `sandbox` | namespaces, and the stages that unpack, run, diff and remove in them |
//! | `secret`, `config` | secrets; the configuration file |
//! | [`oci`], [`rootfs`] | the image format; paths inside a container's root |
//! | [`progress`], [`error`], `interrupt` | progress events, errors, interruption |
//! | `diagnostics` | log lines of svp and its stages |
//!
//! The public modules are the interface: reading, writing and moving OCI images, layers and packs. Everything that runs
//! processes is private and goes through the program, [`main()`] (docs/decisions/072-interface.md).

mod atomic_file;
mod channel;
mod cli;
mod config;
mod diagnostics;
pub mod error;
pub mod import;
mod interrupt;
pub mod layer;
mod mountinfo;
pub mod oci;
pub mod pack;
mod pipeline;
pub mod progress;
mod random_name;
pub mod registry;
mod remove_tree;
pub mod rootfs;
mod sandbox;
mod secret;
mod service;
mod shell_words;
pub mod source;
pub mod store;
mod sys;
mod upkeep;

/// Runs the svp program: as a stage or a monitor if svp started it as one, otherwise as the command line. Returns the
/// exit code.
#[must_use]
pub fn main() -> std::process::ExitCode {
    sys::ignore_file_size_signal();
    sandbox::run_if_stage()
        .or_else(|| service::monitor::run_if_monitor(cli::line))
        .unwrap_or_else(cli::main)
}
