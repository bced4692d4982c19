//! The pipelines: [`build`](build::build) builds a service type's base image from a pack, [`setup`](setup::setup) sets
//! up an instance on that, [`create_service`](create_service::create_service) creates a service from the instance. The
//! rest of this module is their steps.
//!
//! | file | job |
//! |---|---|
//! | `build`, `setup`, `create_service`, `upgrade_service` | the pipelines |
//! | `query` | runs `bin/query`, on the host or in an image |
//! | `base` | finds the source of a base image |
//! | `temporary` | temporary files outside of the store |
//! | `pack_layer` | a pack as a layer |
//! | `script`, `script_log` | runs `bin/build` on an image and writes the changes as a layer; its log |
//! | `new_layer` | new layers, to be appended to an image |
//! | `label` | the config of the images that svp builds |
//! | `environment` | the environment of a script |
//! | `output` | destinations besides the store |
//! | `copy` | copies images: pull, push, copy, save, load |
//! | `index` | creates a multi-platform index |
//! | `compare` | the differences between two images, or of one layer |
//! | `image_role` | the role of an image in svp, and the tags that may be overwritten |

pub(crate) mod base;
pub(crate) mod build;
pub(crate) mod compare;
pub(crate) mod copy;
pub(crate) mod create_service;
pub(crate) mod environment;
mod image_role;
pub(crate) mod index;
mod label;
mod new_layer;
pub(crate) mod output;
mod pack_layer;
pub(crate) mod query;
mod script;
mod script_log;
pub(crate) mod setup;
pub(crate) mod temporary;
pub(crate) mod upgrade_service;

pub(crate) use build::{BuildRequest, build};
pub(crate) use image_role::refuse_instance_name;
pub(crate) use label::Phase;
pub(crate) use script::{ScriptBounds, ScriptOptions};
pub(crate) use setup::{SetupRequest, setup};
