//! Logs of components, in the line format of Kubernetes' container runtimes and podman's `k8s-file` driver:
//! `TIME STREAM TAG TEXT`.
//!
//! `TAG` is `F` for a full line or the last piece of one, `P` for any other piece. A file that has reached its maximum
//! size is rotated between two entries, and the oldest file is removed.

mod read;
mod rotating_log;

pub(crate) use read::{Follower, Line, LogFilter, merged};
pub(crate) use rotating_log::Log;

use std::path::{Path, PathBuf};

/// The path of a component's log file; `age` 0 is the file being written.
fn file(dir: &Path, component: &str, age: u32) -> PathBuf {
    match age {
        0 => dir.join(format!("{component}.log")),
        _ => dir.join(format!("{component}.log.{age}")),
    }
}
