//! Logs of components, in the line format that Kubernetes' container runtimes and podman's
//! `k8s-file` driver write, `TIME STREAM TAG TEXT`.
//!
//! `TAG` is `F` for a whole line, `P` for a piece of one that had no end yet when it had to be written.
//! When a file has reached its size the next is begun, between two lines, and the oldest goes.

mod read;
mod rotating_log;

pub(crate) use read::{Follower, Line, LogFilter, merged};
pub(crate) use rotating_log::Log;

use std::path::{Path, PathBuf};

/// The file of a component's output; `age` 0 is the one that is written to.
fn file(dir: &Path, component: &str, age: u32) -> PathBuf {
    match age {
        0 => dir.join(format!("{component}.log")),
        _ => dir.join(format!("{component}.log.{age}")),
    }
}
