//! A component and its pending actions: start, stop, restart.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::sandbox::{Component, End};
use crate::service::record::Restart;

/// A component and its pending actions.
#[derive(Debug)]
pub(super) struct SupervisedComponent {
    pub(super) component: Component,
    pub(super) argv: Vec<String>,
    pub(super) running: bool,
    /// Whether a start was requested and not yet confirmed.
    pub(super) starting: bool,
    /// When it is to be started.
    pub(super) next_start: Option<Instant>,
    /// When it is to be killed.
    pub(super) deadline: Option<Instant>,
    /// The seconds that it has to stop, unless it is to be killed at once.
    pub(super) stop_seconds: Option<u32>,
    /// When it was last killed.
    pub(super) killed: Option<Instant>,
    /// Whether to start it again when it ends, regardless of the policy.
    pub(super) restart_requested: bool,
    since: Instant,
    backoff: Backoff,
}

impl SupervisedComponent {
    pub(super) fn new(
        component: Component,
        argv: Vec<String>,
        policy: Restart,
    ) -> SupervisedComponent {
        SupervisedComponent {
            component,
            argv,
            running: false,
            starting: false,
            next_start: Some(Instant::now()),
            deadline: None,
            stop_seconds: None,
            killed: None,
            restart_requested: false,
            since: Instant::now(),
            backoff: Backoff::new(policy),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        !self.running && self.next_start.is_none()
    }

    /// Starts the component if its start is due.
    pub(super) fn start_if_due(&mut self, env: &[(String, String)], cwd: &str) {
        if self.next_start.is_some_and(|at| at <= Instant::now()) {
            self.next_start = None;
            self.running = true;
            self.starting = true;
            self.since = Instant::now();
            self.component.start(self.argv.clone(), env.to_vec(), cwd);
        }
    }

    /// Sends the component a signal, and schedules SIGKILL after a number of seconds; `None` schedules it at once.
    pub(super) fn stop(&mut self, how: Option<(i32, u32)>, now: Instant) {
        if !self.running {
            return;
        }
        let seconds = how.map_or(0, |(_, seconds)| seconds);
        if let Some((signal, _)) = how {
            self.component.signal(signal);
        }
        self.stop_seconds = Some(seconds).filter(|seconds| *seconds > 0);
        self.deadline = Some(now + Duration::from_secs(seconds.into()));
    }

    /// Records its exit and schedules its next start; returns the pause before it, if any.
    pub(super) fn ended(&mut self, end: End, stopping: bool) -> Option<Duration> {
        self.running = false;
        self.deadline = None;
        self.killed = None;
        let requested = std::mem::take(&mut self.restart_requested);
        let pause = if stopping {
            None
        } else if requested {
            self.backoff.reset();
            Some(Duration::ZERO)
        } else {
            self.backoff.pause_after(end, self.since.elapsed())
        };
        self.next_start = pause.map(|pause| Instant::now() + pause);
        pause
    }
}
