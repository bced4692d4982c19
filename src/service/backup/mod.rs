//! Backups of services: the output of `bin/backup`, compressed, with a header that identifies it. A backup is restored
//! in a fresh copy of the service first.
//!
//! | file | job |
//! |---|---|
//! | `header` | the header of a backup: image, time, compression |
//! | `output_file` | the file that a backup is written to |
//! | `create` | creates a backup |
//! | `stream_to_script` | streams a backup to a script, in bounded memory |
//! | `restore` | restores a backup, or verifies it |
//! | `upgrade` | upgrades a service to another image |
//! | `quiesce` | keeps a service from starting meanwhile |
//! | `candidate` | the fresh copy of a service |
//! | `replace` | stops the service, replaces it by the copy, and undoes that after a failure |
//! | `cutover` | the journal of a replacement, and the recovery from it |

mod candidate;
pub(crate) mod create;
pub(crate) mod cutover;
pub(crate) mod header;
mod meter;
pub(crate) mod output_file;
mod quiesce;
mod replace;
pub(crate) mod restore;
mod stream_to_script;
pub(crate) mod upgrade;
