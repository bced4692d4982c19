//! The lifecycle of a service that exists: a request and a function for each step of it.
//!
//! | file | job |
//! |---|---|
//! | `start` | starts it, and waits until it is healthy if asked to |
//! | `stop` | stops it, and waits for its end |
//! | `restart` | stops and starts it, or some of its components |
//! | `wait` | waits for its end, and returns its exit code |
//! | `remove` | removes it |

mod remove;
mod restart;
mod start;
mod stop;
mod wait;

pub(crate) use remove::{Remove, Removed, discard, missing_volumes, remove};
pub(crate) use restart::{Restart, restart};
pub(crate) use start::{Start, start};
pub(crate) use stop::{Stop, running, stop};
pub(crate) use wait::wait;

pub(super) use remove::delete;
pub(super) use stop::stop_if_running;
