//! The schedule of health checks, and the one that runs.

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::error::Result;
use crate::service::health_watch::{Failure, HealthWatch};
use crate::service::record::{Record, Restart};

/// The pause before the first check; it doubles until the service is healthy, up to the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long a health command may outlast its time limit, for its start and its end, before it counts as failed.
const OVERTIME: Duration = Duration::from_secs(10);

/// The watch of a container.
pub(super) struct Watch {
    pub(super) settings: HealthWatch,
    /// When the next check is due.
    pub(super) next: Instant,
    /// The pause before the next check while the service is starting.
    pause: Duration,
    /// Until when failures don't count.
    pub(super) grace: Instant,
    /// Whether it has been healthy since its last start.
    pub(super) was_healthy: bool,
    pub(super) check: Option<Check>,
    pub(super) backoff: Backoff,
}

/// A health command that runs.
pub(super) struct Check {
    /// Reaches end of file when there is a result.
    pub(super) done: PipeReader,
    pub(super) result: Receiver<Result<Option<Failure>>>,
    pub(super) began: Instant,
    /// Whether it has counted as failed already.
    pub(super) late: bool,
}

impl Watch {
    pub(super) fn new(record: &Record) -> Option<Watch> {
        let settings = record.health_watch?;
        // The user asks for these restarts, so only the number of the policy limits them.
        let policy = match record.restart {
            limited @ Restart::OnFailure(Some(_)) => limited,
            _ => Restart::Always,
        };
        let mut watch = Watch {
            settings,
            next: Instant::now(),
            pause: FIRST_PAUSE,
            grace: Instant::now(),
            was_healthy: false,
            check: None,
            backoff: Backoff::new(policy),
        };
        watch.begin(Duration::ZERO);
        Some(watch)
    }

    /// Gives the service its time to become healthy, and `extra`.
    pub(super) fn begin(&mut self, extra: Duration) {
        let interval = Duration::from_secs(self.settings.interval.into());
        let start_period = Duration::from_secs(self.settings.start_period.into());
        let now = Instant::now();
        self.pause = FIRST_PAUSE.min(interval);
        self.next = now + self.pause;
        self.grace = now + start_period.max(interval) + extra;
        self.was_healthy = false;
    }

    /// When the watch has something to do, unless its check ends first.
    pub(super) fn due(&self) -> Instant {
        match &self.check {
            None => self.next,
            Some(check) => check.began + self.limit(),
        }
    }

    /// A descriptor that is readable when its check has ended.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.check.as_ref().map(|check| check.done.as_fd())
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.settings.timeout.into()) + OVERTIME
    }

    /// Returns the result of a check that has ended, or whose time is up.
    pub(super) fn result(&mut self) -> Option<Option<Failure>> {
        let limit = self.limit();
        let check = self.check.as_mut()?;
        match check.result.try_recv() {
            Ok(result) => {
                let late = check.late;
                self.check = None;
                // A check that failed already for its lateness does not count twice.
                return (!late).then(|| result.unwrap_or_else(|error| Some(error.into())));
            }
            Err(TryRecvError::Disconnected) => self.check = None,
            Err(TryRecvError::Empty) if check.late || check.began.elapsed() < limit => return None,
            Err(TryRecvError::Empty) => check.late = true,
        }
        Some(Some(Failure::new("its health command does not start or does not end")))
    }

    /// Schedules the next check.
    pub(super) fn schedule(&mut self) {
        let interval = Duration::from_secs(self.settings.interval.into());
        self.pause = if self.was_healthy { interval } else { (self.pause * 2).min(interval) };
        self.next = Instant::now() + self.pause;
    }
}
