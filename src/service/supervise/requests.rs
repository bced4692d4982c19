//! Requests to a supervisor, by signals and by its socket, and the kill that follows when a stop takes too long.

use std::time::{Duration, Instant};

use super::{ContainerEnd, Hooks, Supervisor};
use crate::error::{Cause, Error, Result};
use crate::interrupt;
use crate::pack::query::StopSignal;
use crate::progress::{ServiceNote, Step};
use crate::sandbox::{End, Service};
use crate::service::control::{Connection, Request};
use crate::service::status::{State, now, shell_code};

/// How long to wait for killed processes before the whole container is killed.
const KILLED: Duration = Duration::from_secs(5);
/// Interval between repeated kills.
const KILL_AGAIN: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// Handles a signal received by svp: the first termination signal stops the service, the next one kills it; other
    /// signals are forwarded to the components.
    pub(super) fn handle_signal(&mut self, hooks: &mut Hooks<'_>) {
        let mut byte = [0];
        // Reads without duplicating the descriptor: there may be no descriptors left.
        let _ = rustix::io::read(&self.job.signals, &mut byte);
        let signal = i32::from(byte[0]);
        if !interrupt::is_termination(signal) {
            self.components.iter().for_each(|component| component.component.signal(signal));
        } else if self.stopping {
            let now = Instant::now();
            self.components.iter_mut().for_each(|component| component.stop(None, now));
        } else {
            hooks.reporter.step(Step::StopService);
            self.stop(self.job.record.stop_seconds());
        }
    }

    /// Asks every component to end, and cancels pending restarts.
    pub(super) fn stop(&mut self, seconds: u32) {
        self.stopping = true;
        self.status.state = State::Stopping;
        self.status.components.iter_mut().for_each(|component| component.killed = false);
        self.write_status();
        let signal = self.job.record.stop_signal;
        let now = Instant::now();
        for (component, component_status) in self.components.iter_mut().zip(&self.status.components)
        {
            // Without its pending restart, the component's last exit is final.
            if component.next_start.take().is_some() && !component.running && self.code == 0 {
                self.code = component_status.end.map_or(0, shell_code);
            }
            component.restart_requested = false;
            component.stop(Some((signal, seconds)), now);
        }
    }

    /// Answers a request. `service` is `None` between two containers.
    pub(super) fn handle_request(
        &mut self,
        connection: &Connection,
        request: Request,
        service: Option<&Service>,
    ) {
        match (request, service) {
            (Request::Stop(seconds), _) => {
                self.stop(seconds);
                connection.answer(Ok(()), &[]);
            }
            (Request::Restart(name, seconds), _) => {
                connection.answer(self.restart(&name, seconds), &[])
            }
            (Request::Join, Some(service)) => {
                connection.answer(Ok(()), &[service.user_namespace(), service.init_pidfd()]);
            }
            (Request::Join, None) => {
                let error = Error::usage("the service's container was killed")
                    .cause(Cause::ContainerGone)
                    .hint("its restart policy starts another one in a moment");
                connection.answer(Err(error), &[]);
            }
        }
    }

    fn restart(&mut self, name: &str, seconds: u32) -> Result<()> {
        let names = self.job.record.component_names();
        let Some(number) = names.iter().position(|known| known == name) else {
            return Err(Error::usage(format!("the service has no component {name}"))
                .hint(format!("its components are: {}", names.join(", "))));
        };
        // Before the answer: from then on the client reads the status.
        self.status.components[number].killed = false;
        self.write_status();
        let component = &mut self.components[number];
        if component.running {
            component.restart_requested = true;
            component.stop(Some((self.job.record.stop_signal, seconds)), Instant::now());
        } else {
            component.next_start = Some(Instant::now());
        }
        Ok(())
    }

    /// Kills components whose deadline has passed; returns whether they can still be expected to end.
    pub(super) fn enforce(&mut self, hooks: &Hooks<'_>) -> bool {
        let now = Instant::now();
        let (mut killed, mut after) = (Vec::new(), 0);
        let components = self.components.iter_mut().zip(&mut self.status.components);
        for (component, component_status) in components.filter(|(component, _)| component.running) {
            let Some(deadline) = component.deadline else { continue };
            if now > deadline + KILLED {
                return false;
            }
            let next_kill = component.killed.map_or(deadline, |at| at.max(deadline) + KILL_AGAIN);
            if now >= next_kill {
                component.killed = Some(now);
                component.component.kill();
                if let Some(seconds) = component.stop_seconds.take() {
                    component_status.killed = true;
                    killed.push(component_status.name.clone());
                    after = after.max(seconds);
                }
            }
        }
        if !killed.is_empty() {
            self.write_status();
            let signal = StopSignal(self.job.record.stop_signal).to_string();
            let note = ServiceNote::StopTimedOut { components: killed, signal, seconds: after };
            hooks.reporter.note(note.into());
        }
        true
    }

    /// Records the components that did not exit as killed if the service is stopping; returns how the container ends.
    pub(super) fn give_up_on_components(&mut self) -> ContainerEnd {
        if !self.stopping {
            return ContainerEnd::Killed;
        }
        let killed = End::Signaled(libc::SIGKILL);
        for (component, component_status) in self.components.iter().zip(&mut self.status.components)
        {
            if component.running {
                component_status.running = false;
                component_status.end = Some(killed);
                component_status.since = now();
            }
        }
        if self.code == 0 {
            self.code = shell_code(killed);
        }
        ContainerEnd::Done
    }
}
