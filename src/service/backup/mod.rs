//! Backups of services: the output of `bin/backup`, compressed, with a header that identifies it; and
//! restoring them, in a fresh copy first.
//!
//! | file | job |
//! |---|---|
//! | `header` | the header of a backup: image, time, compression |
//! | `output_file` | the file that one is written to |
//! | `create` | making one |
//! | `stream_to_script` | reading one, whole and in bounded memory |
//! | `restore` | restoring one, or only trying to |
//! | `quiesce` | keeps a service from starting meanwhile |
//! | `candidate` | the fresh copy of a service |
//! | `cutover` | putting that in the old one's place |

mod candidate;
pub(crate) mod create;
pub(crate) mod cutover;
pub(crate) mod header;
pub(crate) mod output_file;
mod quiesce;
pub(crate) mod restore;
mod stream_to_script;
