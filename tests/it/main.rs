//! All integration tests of svp, in one program that is compiled and linked once. `cargo test --test it store::` runs a
//! module, `cargo test --test it e2e::run::` a module of the end-to-end tests.
//!
//! Tests share this process, so none may change process-wide state (environment, working directory, umask, limits):
//! such a test runs svp, or itself again as `layer_common::inside` does.

// Long tests print their measurements, and a test program has no public interface.
#![allow(clippy::print_stdout, clippy::print_stderr, unreachable_pub)]

mod architecture;
mod architecture_cycles;
mod archive;
mod certs;
mod cli_images;
mod cli_words;
mod compression;
mod decisions;
mod devices;
mod diff;
mod docker_archive;
mod e2e;
mod every_file;
mod import;
mod index;
mod killed;
mod layer_common;
mod layer_diff;
mod layer_index;
mod layer_law;
mod layer_memory;
mod layer_tar;
mod layer_unpack;
mod layout;
mod loaded;
mod login;
mod manual;
mod many_tags;
mod pack;
mod packages;
mod policy;
mod probes;
mod proxies;
mod pull_faults;
mod pull_kept;
mod push;
mod push_access;
mod registries_conf;
mod registry_auth;
mod registry_faults;
mod registry_real;
mod sandbox;
mod schema;
mod soak;
mod source;
mod store;
mod support;
mod tools;
mod transports;
mod unpack_set_id;
mod unpackable;
mod upkeep;
mod upload_limits;
