//! Waits for events of a supervisor: requests, signals, and starts and exits of components.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::health_schedule::Watch;
use super::{Hooks, Supervisor, TICK, milliseconds};
use crate::error::{Error, Result};
use crate::progress::ServiceNote;
use crate::sandbox::{End, Event, Service};
use crate::service::status::{State, now, shell_code};

/// The event sources of a supervisor that are ready.
pub(super) struct Ready {
    pub(super) control: bool,
    pub(super) signal: bool,
    pub(super) container: bool,
    pub(super) components: Vec<bool>,
}

impl Supervisor<'_> {
    /// Records an event of a component; returns whether the container still exists.
    pub(super) fn handle_event(
        &mut self,
        number: usize,
        event: Event,
        hooks: &mut Hooks<'_>,
    ) -> bool {
        self.components[number].starting = false;
        match event {
            Event::Started => {
                let component_status = &mut self.status.components[number];
                component_status.running = true;
                component_status.since = now();
                if self.status.components.iter().all(|component_status| component_status.running) {
                    self.status.error = None;
                }
            }
            Event::NotStarted(error) => {
                self.status.error = Some(error.to_string());
                if self.status.state == State::Starting {
                    self.components[number].running = false;
                    self.start_error = Some(error);
                } else {
                    // It started before, so the failure may be temporary.
                    let reason = error.to_string();
                    hooks.reporter.note(ServiceNote::ComponentNotStarted { reason }.into());
                    self.ended(number, End::Exited(127), hooks);
                }
            }
            Event::Ended(end) => self.ended(number, end, hooks),
            Event::Gone => return false,
        }
        self.write_status();
        true
    }

    fn ended(&mut self, number: usize, end: End, hooks: &mut Hooks<'_>) {
        let component_status = &mut self.status.components[number];
        component_status.running = false;
        component_status.end = Some(end);
        component_status.since = now();
        match self.components[number].ended(end, self.stopping) {
            Some(pause) => {
                component_status.restarts += 1;
                let (component, end) = (component_status.name.clone(), ending(end));
                let delay_ms = milliseconds(pause);
                let note = ServiceNote::ComponentRestart { component, end, delay_ms };
                hooks.reporter.note(note.into());
            }
            None if self.code == 0 => self.code = shell_code(end),
            None => {}
        }
    }

    /// Waits for the next event, at most until `until`.
    pub(super) fn wait(&self, service: Option<&Service>, until: Option<Instant>) -> Result<Ready> {
        let fixed: [BorrowedFd<'_>; 2] = [self.listener.as_fd(), self.job.signals.as_fd()];
        let components = self.components.iter().map(|component| component.component.as_fd());
        let mut fds: Vec<PollFd<'_>> = fixed
            .into_iter()
            .chain(components)
            .chain(service.map(Service::init_pidfd))
            .chain(self.watch.as_ref().and_then(Watch::fd))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let times =
            self.components.iter().flat_map(|component| [component.next_start, component.deadline]);
        let times = times.chain([until, self.watch.as_ref().map(Watch::due)]);
        let next = times.flatten().min().map(|at| at.saturating_duration_since(Instant::now()));
        // A deadline in the past must not make the loop spin.
        let pause = next.unwrap_or(TICK).clamp(Duration::from_millis(10), TICK);
        let pause =
            Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        match poll(&mut fds, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let error = std::io::Error::from(error);
                return Err(Error::sandbox("can't poll the service").source(error));
            }
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let components = 2..2 + self.components.len();
        Ok(Ready {
            control: ready[0],
            signal: ready[1],
            container: service.is_some() && ready[components.end],
            components: ready[components].to_vec(),
        })
    }
}

fn ending(end: End) -> String {
    match end {
        End::Exited(code) => format!("exited with {code}"),
        End::Signaled(signal) => format!("was killed by signal {signal}"),
        End::TimedOut | End::TooMuchOutput => "was stopped".to_owned(),
    }
}
