//! Stages: new single-threaded processes of svp, each doing one task in namespaces.
//!
//! | file | job |
//! |---|---|
//! | `protocol` | requests, descriptors and answers |
//! | `launch` | starts a stage and exchanges messages with it |
//! | `process` | changes to a stage's own process; pidfds |
//! | `fd_limit` | RLIMIT_NOFILE |

pub(super) mod fd_limit;
pub(super) mod launch;
pub(super) mod process;
pub(super) mod protocol;
