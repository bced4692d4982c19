//! What is to become of a component, and of a container: started again after a pause that grows, or not.

use std::time::{Duration, Instant};

use super::record::Restart;
use crate::sandbox::{Component, End};

/// The first pause before a component is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What ran so long is well: its next failure is a first one.
const WELL: Duration = Duration::from_secs(10);

/// A restart policy at work: how often in a row something has failed, and how long it is left alone.
#[derive(Debug)]
pub(super) struct Patience {
    policy: Restart,
    pause: Duration,
    failures: u32,
}

impl Patience {
    pub(super) fn new(policy: Restart) -> Patience {
        Patience { policy, pause: FIRST_PAUSE, failures: 0 }
    }

    /// The next failure is a first one.
    fn reset(&mut self) {
        self.pause = FIRST_PAUSE;
        self.failures = 0;
    }

    /// How long to wait before what has ended after `ran` is started again; `None` if it isn't.
    pub(super) fn pause_after(&mut self, end: End, ran: Duration) -> Option<Duration> {
        if ran > WELL {
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

/// A component and what is to become of it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) component: Component,
    pub(super) argv: Vec<String>,
    pub(super) running: bool,
    /// Whether it has been told to start, and nothing was heard since.
    pub(super) starting: bool,
    /// When it is to be started.
    pub(super) next_start: Option<Instant>,
    /// When it is to be killed.
    pub(super) deadline: Option<Instant>,
    /// When it was last killed.
    pub(super) killed: Option<Instant>,
    /// Start it when it has ended, whatever the policy says.
    pub(super) again: bool,
    since: Instant,
    patience: Patience,
}

impl Kept {
    pub(super) fn new(component: Component, argv: Vec<String>, policy: Restart) -> Kept {
        Kept {
            component,
            argv,
            running: false,
            starting: false,
            next_start: Some(Instant::now()),
            deadline: None,
            killed: None,
            again: false,
            since: Instant::now(),
            patience: Patience::new(policy),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        !self.running && self.next_start.is_none()
    }

    /// Starts it if its time has come.
    pub(super) fn start_if_due(&mut self, env: &[(String, String)], cwd: &str) {
        if self.next_start.is_some_and(|at| at <= Instant::now()) {
            self.next_start = None;
            self.running = true;
            self.starting = true;
            self.since = Instant::now();
            self.component.start(self.argv.clone(), env.to_vec(), cwd);
        }
    }

    /// Asks it to end: with a signal, and by force after so many seconds; at once by force if `None`.
    pub(super) fn stop(&mut self, how: Option<(i32, u32)>) {
        if !self.running {
            return;
        }
        match how {
            Some((signal, seconds)) => {
                self.component.signal(signal);
                self.deadline = Some(Instant::now() + Duration::from_secs(seconds.into()));
            }
            None => self.deadline = Some(Instant::now()),
        }
    }

    /// Takes note of its end, and sets the time of its next start; the pause before that, if there is one.
    pub(super) fn ended(&mut self, end: End, stopping: bool) -> Option<Duration> {
        self.running = false;
        self.deadline = None;
        self.killed = None;
        let asked = std::mem::take(&mut self.again);
        let pause = if stopping {
            None
        } else if asked {
            self.patience.reset();
            Some(Duration::ZERO)
        } else {
            self.patience.pause_after(end, self.since.elapsed())
        };
        self.next_start = pause.map(|pause| Instant::now() + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_failures_are_counted() {
        let brief = Duration::from_millis(5);
        let mut always = Patience::new(Restart::Always);
        let pauses: Vec<_> =
            (0..12).map(|_| always.pause_after(End::Exited(0), brief).unwrap()).collect();
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(pauses[11], LONGEST_PAUSE);
        assert_eq!(always.pause_after(End::Exited(0), WELL * 2), Some(FIRST_PAUSE));
        let mut twice = Patience::new(Restart::OnFailure(Some(2)));
        assert!(twice.pause_after(End::Signaled(9), brief).is_some());
        assert!(twice.pause_after(End::Exited(1), brief).is_some());
        assert!(twice.pause_after(End::Exited(1), brief).is_none());
        assert!(twice.pause_after(End::Exited(1), WELL * 2).is_some());
        assert!(twice.pause_after(End::Exited(0), brief).is_none());
        assert!(Patience::new(Restart::No).pause_after(End::Exited(1), brief).is_none());
    }
}
