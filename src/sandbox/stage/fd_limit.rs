//! RLIMIT_NOFILE, and a limit on the descriptors of relayed connections: clients of a link or a published port must
//! not exhaust the descriptors that stopping a service needs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The maximum number of descriptors for all relayed connections of this process.
const MAX_RELAYED: usize = 8192;
/// Descriptors reserved for the rest of this process, in addition to those that were open at the start.
const KEPT_FREE: usize = 128;

/// The soft limit before this process raised it.
static BEFORE: OnceLock<u64> = OnceLock::new();
/// The descriptors that are reserved for connections.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Raises the soft limit of this process to the hard limit. Its stages get the original soft limit.
pub(in crate::sandbox) fn raise_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    if let Some(soft) = limits.current.filter(|soft| limits.maximum.is_none_or(|most| most > *soft))
        && setrlimit(Resource::Nofile, raised).is_ok()
    {
        // Set once; later calls keep the first value.
        let _ = BEFORE.set(soft);
    }
}

/// Returns the argument that passes the original limit to a stage, if it was raised.
pub(in crate::sandbox) fn limit_before() -> Option<String> {
    BEFORE.get().map(u64::to_string)
}

/// Restores the original limit in a stage: processes in a container must not see a different one.
pub(in crate::sandbox) fn lower_limit() {
    let original = std::env::args().nth(1).and_then(|soft| soft.parse().ok());
    if let Some(soft) = original {
        let maximum = getrlimit(Resource::Nofile).maximum;
        // Can't fail: this only lowers the limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum });
    }
}

/// Descriptors reserved for relayed connections. Dropping it releases them.
#[derive(Debug)]
pub(in crate::sandbox) struct FdReservation(usize);

impl FdReservation {
    /// Reserves this many descriptors, if they are available.
    pub(in crate::sandbox) fn take(descriptors: usize) -> Option<FdReservation> {
        static AVAILABLE: OnceLock<usize> = OnceLock::new();
        let most = *AVAILABLE
            .get_or_init(|| available_for(getrlimit(Resource::Nofile).current, open_now()));
        let enough = |taken| Some(taken + descriptors).filter(|taken| *taken <= most);
        TAKEN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough).ok()?;
        Some(FdReservation(descriptors))
    }
}

impl Drop for FdReservation {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::SeqCst);
    }
}

/// Returns how many descriptors may be reserved under a limit, given the number already open.
fn available_for(limit: Option<u64>, open: usize) -> usize {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit.saturating_sub(KEPT_FREE + open).min(MAX_RELAYED)
}

fn open_now() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_the_rest_of_the_process() {
        assert_eq!(available_for(Some(1024), 50), 1024 - KEPT_FREE - 50);
        assert_eq!(available_for(Some(256), 200), 0);
        assert_eq!(available_for(None, 50), MAX_RELAYED);
    }
}
