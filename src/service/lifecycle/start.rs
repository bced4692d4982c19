//! Starts a service in the background.

use std::path::Path;
use std::time::Duration;

use super::stop::refuse_during_copy;
use crate::error::Result;
use crate::progress::Reporter;
use crate::service::service_dir::ServiceDir;
use crate::service::{health, monitor};

/// How to start a service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Start {
    /// Wait until it is healthy, for so long at most.
    pub wait: Option<Duration>,
}

/// Starts a service, and leaves it running.
///
/// # Errors
/// Those of starting it; [`Kind::Usage`](crate::error::Kind::Usage) if it is running, or stopped while a backup copies
/// its files; [`Kind::Script`](crate::error::Kind::Script) if it is not healthy in time.
pub(crate) fn start(
    root: &Path,
    service_dir: &ServiceDir,
    request: &Start,
    reporter: &dyn Reporter,
) -> Result<()> {
    refuse_during_copy(service_dir)?;
    monitor::start(root, service_dir, reporter)?;
    request.wait.map_or(Ok(()), |limit| health::wait(root, service_dir, limit, reporter))
}
