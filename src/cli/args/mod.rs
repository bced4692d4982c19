//! Arguments that several commands share.

mod bounds;
mod compression;
mod duration;
pub(super) mod env_file;
mod environment;
mod health;
mod log_size;
mod output;
mod pull;
mod registry;
mod script;
mod seconds;
mod secrets;
mod value;
mod variable;

use bounds::BoundArgs;
pub(super) use compression::{CompressionArgs, CompressionFormat, RecompressionArgs};
pub(super) use environment::{EnvFormat, environment_text};
pub(super) use health::HealthArgs;
pub(super) use log_size::LogSize;
pub(super) use output::{OutputArgs, check_metadata, outputs, print_data, push, write_metadata};
pub(super) use pull::{PullArgs, SignatureArgs};
pub(super) use registry::RegistryArgs;
pub(super) use script::{NetworkArg, ScriptArgs};
pub(super) use seconds::Seconds;
pub(super) use secrets::SecretArgs;
pub(super) use value::parsed;
pub(super) use variable::EnvArg;
