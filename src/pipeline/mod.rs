//! The pipelines: [`build`](build::build) makes a service type's base image from a pack,
//! [`setup`](setup::setup) one instance of it, [`create_service`](create_service::create_service) a service of that. The rest of this module is their steps.
//!
//! | file | what it does |
//! |---|---|
//! | `build`, `setup`, `create_service` | the recipes |
//! | `query` | running `bin/query`, on the host or in an image |
//! | `base` | where a base image comes from |
//! | `pack_layer` | a pack as a layer |
//! | `script` | running `bin/build` on an image, and writing what it changed |
//! | `new_layer` | new layers, to be put on an image |
//! | `label` | the config that an image of ours has |
//! | `environment` | what a script finds in its environment |
//! | `output` | where an image goes besides the store |
//! | `copy` | carrying images about: pull, push, copy, save, load |
//! | `index` | one name for the images of several platforms |
//! | `compare` | what differs between two images, or by one layer |
//! | `image_role` | what an image is to svp, and which tags may be written to |

pub mod base;
pub mod build;
pub mod compare;
pub mod copy;
pub mod create_service;
pub mod environment;
mod image_role;
pub mod index;
mod label;
mod new_layer;
pub mod output;
mod pack_layer;
pub mod query;
mod script;
pub mod setup;

pub use build::{BuildRequest, Built, build};
pub use image_role::refuse_instance_name;
pub use label::{LABEL_PHASE, Phase};
pub use script::ScriptOptions;
pub use setup::{SetUp, SetupRequest, setup};
