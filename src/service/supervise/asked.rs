//! What is asked of a supervisor, by signals and by its socket, and the force that follows where asking is in vain.

use std::time::{Duration, Instant};

use super::{Hooks, Over, STOP_SECONDS, Supervisor};
use crate::error::{Cause, Error, Result};
use crate::interrupt;
use crate::sandbox::{End, Service};
use crate::service::control::{Ask, Asker};
use crate::service::status::{Standing, now, shell_code};

/// How long to wait for what was killed, before the whole container is.
const KILLED: Duration = Duration::from_secs(5);
/// How long until it is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// A signal that svp got: asks for a stop, then for a quick one, or is the service's.
    pub(super) fn signalled(&mut self, hooks: &mut Hooks<'_>) {
        let mut byte = [0];
        // Without a descriptor more: there may be none left.
        let _ = rustix::io::read(&self.job.signals, &mut byte);
        let signal = i32::from(byte[0]);
        if !interrupt::asks_to_end(signal) {
            self.kept.iter().for_each(|kept| kept.component.signal(signal));
        } else if self.stopping {
            self.kept.iter_mut().for_each(|kept| kept.stop(None));
        } else {
            hooks.reporter.step("stopping");
            self.stop(STOP_SECONDS);
        }
    }

    /// Asks every component to end, and none to start again.
    pub(super) fn stop(&mut self, seconds: u32) {
        self.stopping = true;
        self.status.standing = Standing::Stopping;
        self.tell();
        let signal = self.job.record.stop_signal;
        for (kept, told) in self.kept.iter_mut().zip(&self.status.components) {
            // What would have started again won't: its last end is its end.
            if kept.next_start.take().is_some() && !kept.running && self.code == 0 {
                self.code = told.end.map_or(0, shell_code);
            }
            kept.again = false;
            kept.stop(Some((signal, seconds)));
        }
    }

    /// Answers one who asked, without a service while a container is waited for.
    pub(super) fn answer(&mut self, asker: &Asker, ask: Ask, service: Option<&Service>) {
        match (ask, service) {
            (Ask::Stop(seconds), _) => {
                self.stop(seconds);
                asker.answer(Ok(()), &[]);
            }
            (Ask::Restart(name, seconds), _) => asker.answer(self.restart(&name, seconds), &[]),
            (Ask::Join, Some(service)) => {
                asker.answer(Ok(()), &[service.user_namespace(), service.process_1()]);
            }
            (Ask::Join, None) => {
                let error = Error::usage("the service's container was killed")
                    .cause(Cause::ContainerGone)
                    .hint("another is made in a moment, as its restart policy says");
                asker.answer(Err(error), &[]);
            }
        }
    }

    fn restart(&mut self, name: &str, seconds: u32) -> Result<()> {
        let names = self.job.record.component_names();
        let Some(number) = names.iter().position(|known| known == name) else {
            return Err(Error::usage(format!("the service has no component {name}"))
                .hint(format!("its components are: {}", names.join(", "))));
        };
        let kept = &mut self.kept[number];
        if kept.running {
            kept.again = true;
            kept.stop(Some((self.job.record.stop_signal, seconds)));
        } else {
            kept.next_start = Some(Instant::now());
        }
        Ok(())
    }

    /// Kills those whose time is over; whether they can still be expected to end.
    pub(super) fn enforce(&mut self) -> bool {
        let now = Instant::now();
        for kept in self.kept.iter_mut().filter(|kept| kept.running) {
            let Some(deadline) = kept.deadline else { continue };
            if now > deadline + KILLED {
                return false;
            }
            let next_kill = kept.killed.map_or(deadline, |at| at.max(deadline) + KILL_AGAIN);
            if now >= next_kill {
                kept.killed = Some(now);
                kept.component.kill();
            }
        }
        true
    }

    /// Takes note of those that can't be expected to end any more, and what their container's end means.
    pub(super) fn given_up(&mut self) -> Over {
        if !self.stopping {
            return Over::Killed;
        }
        let killed = End::Signaled(libc::SIGKILL);
        for (kept, told) in self.kept.iter().zip(&mut self.status.components) {
            if kept.running {
                told.running = false;
                told.end = Some(killed);
                told.since = now();
            }
        }
        if self.code == 0 {
            self.code = shell_code(killed);
        }
        Over::Done
    }
}
