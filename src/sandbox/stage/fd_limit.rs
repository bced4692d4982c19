//! RLIMIT_NOFILE, and how many descriptors relayed connections may take: clients of a link or a port must not exhaust
//! those by which a service is stopped.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most descriptors for all that this process carries.
const MOST: usize = 8192;
/// Descriptors that are left for the rest of this process, besides those that are open when it begins.
const KEPT_FREE: usize = 128;

/// The soft limit that this process had before it raised it.
static BEFORE: OnceLock<u64> = OnceLock::new();
/// What is taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Lets this process have as many descriptors as it may. The stages that it starts have what it had before.
pub(in crate::sandbox) fn raise_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    if let Some(soft) = limits.current.filter(|soft| limits.maximum.is_none_or(|most| most > *soft))
        && setrlimit(Resource::Nofile, raised).is_ok()
    {
        let _ = BEFORE.set(soft);
    }
}

/// What a stage is told, if the limit was raised.
pub(in crate::sandbox) fn limit_before() -> Option<String> {
    BEFORE.get().map(u64::to_string)
}

/// Gives this stage the limit that it was told: what runs in a container must not get another.
pub(in crate::sandbox) fn lower_limit() {
    let told = std::env::args().nth(1).and_then(|soft| soft.parse().ok());
    if let Some(soft) = told {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum });
    }
}

/// Descriptors that are taken for what is carried. Dropped means given back.
#[derive(Debug)]
pub(in crate::sandbox) struct FdReservation(usize);

impl FdReservation {
    /// Takes some, if that many are left.
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

/// How many may be taken under a limit, when others are open.
fn available_for(limit: Option<u64>, open: usize) -> usize {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit.saturating_sub(KEPT_FREE + open).min(MOST)
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
        assert_eq!(available_for(None, 50), MOST);
    }
}
