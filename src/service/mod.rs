//! Instances and running services.
//!
//! | file | job |
//! |---|---|
//! | `instance_state` | the state that an instance's image does not have: its secrets |
//! | `name`, `mount`, `stop_signal` | parts of a record that are parsed from command lines |
//! | `record`, `status`, `service_dir`, `lock` | the description, state and directory of a service |
//! | `process` | whether a process that was written down is still there |
//! | `supervise`, `control` | restarts components, and takes requests meanwhile |
//! | `log` | the output of its components |
//! | `lifecycle` | starts, stops, restarts and removes services; waits for their end |
//! | `exec`, `health` | commands in a running service; health checks |
//! | `backup` | backups of it |
//! | `address` | its address on the host |
//! | `links` | other services that it reaches |
//! | `environment` | the environment of its scripts |
//! | `export` | a service as other engines run it |

pub mod address;
pub mod backup;
pub mod control;
pub mod environment;
pub mod exec;
pub mod export;
pub mod health;
mod instance_state;
pub mod lifecycle;
pub mod links;
mod lock;
pub mod log;
pub mod monitor;
pub mod mount;
pub mod name;
pub mod prepare;
mod process;
pub mod record;
pub mod service_dir;
pub mod status;
pub mod stop_signal;
pub mod supervise;

pub use instance_state::{InstanceState, SavedInstanceState, unreferenced_states};
