//! Instances and running services.
//!
//! | file | job |
//! |---|---|
//! | `instance_state` | the state that an instance's image does not have: its secrets |
//! | `record`, `status`, `service_dir`, `lock` | the description, state and directory of a service |
//! | `process` | whether a process that was written down is still there |
//! | `supervise`, `control` | restarts components, and takes requests meanwhile |
//! | `log` | the output of its components |
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
pub mod links;
mod lock;
pub mod log;
pub mod monitor;
pub mod prepare;
mod process;
pub mod record;
pub mod service_dir;
pub mod status;
pub mod supervise;

pub use instance_state::{InstanceState, SavedInstanceState, unreferenced_states};

use crate::error::Result;
use crate::sandbox::Sandbox;
use record::Record;
use service_dir::ServiceDir;

/// Removes a stopped service: its files, logs and record; its volumes too if told
/// so, except those that other services use. Returns the names of these.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
pub fn remove(
    service_dir: &ServiceDir,
    record: &Record,
    sandbox: &Sandbox,
    volumes: bool,
) -> Result<Vec<String>> {
    sandbox.remove_service(&record.id)?;
    let mut kept = Vec::new();
    if volumes {
        let others = service_dir.other_records()?;
        for name in record.volume_names() {
            if others.iter().any(|other| other.volume_names().any(|theirs| theirs == name)) {
                kept.push(name.to_owned());
            } else {
                sandbox.remove_volume(name)?;
            }
        }
    }
    service_dir.remove()?;
    Ok(kept)
}
