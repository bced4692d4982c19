//! Instances and running services.
//!
//! | file | job |
//! |---|---|
//! | `instance_state` | the state of an instance that is not in its image: its secrets |
//! | `name`, `host_name`, `mount` | parts of a record that are parsed from command lines |
//! | `record`, `status`, `service_dir`, `lock` | the description, state and directory of a service |
//! | `process` | identifies processes across the reuse of PIDs |
//! | `supervise`, `control` | runs and restarts components, and answers requests |
//! | `log` | the output of its components |
//! | `lifecycle` | starts, stops, restarts and removes services; waits for their end |
//! | `exec`, `health` | commands in a running service; health checks |
//! | `backup` | backups of it |
//! | `address` | its address on the host |
//! | `link_spec`, `links` | other services that it reaches |
//! | `tag_drift` | whether its tag names another image by now |
//! | `environment`, `image_config` | the environment of its scripts; checks what its image says of itself |
//! | `volume` | its volumes: their users, their setup, and their tar |
//! | `export` | writes a service in the formats of other engines |

pub(crate) mod address;
pub(crate) mod backup;
pub(crate) mod control;
pub(crate) mod environment;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod health;
pub(crate) mod health_watch;
pub(crate) mod host_name;
pub(crate) mod image_config;
mod instance_state;
pub(crate) mod lifecycle;
pub(crate) mod link_spec;
pub(crate) mod links;
mod lock;
pub(crate) mod log;
pub(crate) mod monitor;
pub(crate) mod mount;
pub(crate) mod name;
pub(crate) mod prepare;
mod process;
pub(crate) mod record;
pub(crate) mod service_dir;
pub(crate) mod status;
pub(crate) mod supervise;
pub(crate) mod tag_drift;
pub(crate) mod volume;

pub(crate) use instance_state::{InstanceState, SavedInstanceState, unreferenced_states};
