//! Stages: fresh, single-threaded starts of svp that do one thing each in namespaces.
//!
//! | file | what it does |
//! |---|---|
//! | `protocol` | requests, descriptors and answers |
//! | `launch` | starts a stage and talks to it |
//! | `process` | what a stage does to its own process; pidfds |
//! | `fd_limit` | RLIMIT_NOFILE |

pub(super) mod fd_limit;
pub(super) mod launch;
pub(super) mod process;
pub(super) mod protocol;
