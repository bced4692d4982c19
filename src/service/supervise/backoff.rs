//! Restart policy with exponential back-off, for components and containers.

use std::time::Duration;

use crate::sandbox::End;
use crate::service::record::Restart;

/// The first pause before a component is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After this uptime the back-off is reset.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The state of a restart policy: the number of consecutive failures, and the next pause.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: Restart,
    pause: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(policy: Restart) -> Backoff {
        Backoff { policy, pause: FIRST_PAUSE, failures: 0 }
    }

    /// Forgets all failures.
    pub(super) fn reset(&mut self) {
        self.pause = FIRST_PAUSE;
        self.failures = 0;
    }

    /// Returns the pause before a restart after an uptime of `ran`; `None` if there is no restart.
    pub(super) fn pause_after(&mut self, end: End, ran: Duration) -> Option<Duration> {
        if ran > STABLE_AFTER {
            self.reset();
        }
        self.failures += 1;
        let again = match self.policy {
            Restart::No => false,
            Restart::OnFailure(most) => {
                end != End::Exited(0) && most.is_none_or(|most| self.failures <= most)
            }
            Restart::Always => true,
        };
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        again.then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_failures_are_counted() {
        let brief = Duration::from_millis(5);
        let mut always = Backoff::new(Restart::Always);
        let pauses: Vec<_> =
            (0..12).map(|_| always.pause_after(End::Exited(0), brief).unwrap()).collect();
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(pauses[11], LONGEST_PAUSE);
        assert_eq!(always.pause_after(End::Exited(0), STABLE_AFTER * 2), Some(FIRST_PAUSE));
        let mut twice = Backoff::new(Restart::OnFailure(Some(2)));
        assert!(twice.pause_after(End::Signaled(9), brief).is_some());
        assert!(twice.pause_after(End::Exited(1), brief).is_some());
        assert!(twice.pause_after(End::Exited(1), brief).is_none());
        assert!(twice.pause_after(End::Exited(1), STABLE_AFTER * 2).is_some());
        assert!(twice.pause_after(End::Exited(0), brief).is_none());
        assert!(Backoff::new(Restart::No).pause_after(End::Exited(1), brief).is_none());
    }
}
