//! Waits for a service's end.

use crate::error::Result;
use crate::service::service_dir::ServiceDir;

/// The exit code of a service that was killed together with its monitor, which recorded none.
const KILLED: i32 = 137;

/// Waits until a service ends; returns its exit code, as a shell reports it.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn wait(service_dir: &ServiceDir) -> Result<i32> {
    let left = service_dir.wait_for_monitor(service_dir.monitor())?.map(|end| end.code);
    Ok(left.or(service_dir.status()?.exit_code).unwrap_or(KILLED))
}
