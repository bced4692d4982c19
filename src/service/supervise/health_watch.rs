//! Checks the health of a running service at intervals, and restarts it on request when it is unhealthy.
//!
//! A health command runs on a thread of its own, and only one at a time: one that hangs, even beyond SIGKILL, delays
//! neither the supervisor nor the end of the service.

use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::health_schedule::{Check, Watch};
use super::{Hooks, Supervisor};
use crate::error::{Error, Result};
use crate::progress::ServiceNote;
use crate::sandbox::{End, JoinSpec, Service, join};
use crate::service::health;
use crate::service::health_watch::{Failure, HealthState, HealthStatus, OnUnhealthy};
use crate::service::status::{State, now};

impl Supervisor<'_> {
    /// Begins the watch of a new container.
    pub(super) fn begin_watch(&mut self) {
        self.watch = Watch::new(self.job.record);
        if self.watch.is_some() {
            let health = self.status.health.get_or_insert_with(HealthStatus::starting);
            health.state = HealthState::Starting;
            health.failures = 0;
        }
    }

    /// Starts a check if one is due, and records the result of one that has ended.
    pub(super) fn watch_health(&mut self, service: &Service, hooks: &Hooks<'_>) {
        let Some(watch) = &mut self.watch else { return };
        if let Some(result) = watch.result() {
            watch.schedule();
            self.record_check(result, hooks);
            return;
        }
        let restarting = self.components.iter().any(|component| component.deadline.is_some());
        let idle = self.stopping || restarting || self.status.state != State::Running;
        if idle || watch.check.is_some() || Instant::now() < watch.next {
            return;
        }
        let timeout = Duration::from_secs(watch.settings.timeout.into());
        let failure = match (health::component_down(&self.status), &self.job.record.health) {
            (Some(down), _) => Some(down),
            (None, None) => health::unheard_port(&self.status, self.job.record),
            (None, Some(command)) => match self.start_check(command, service, timeout) {
                Ok(check) => {
                    if let Some(watch) = &mut self.watch {
                        watch.check = Some(check);
                    }
                    return;
                }
                Err(error) => Some(error.into()),
            },
        };
        if let Some(watch) = &mut self.watch {
            watch.schedule();
        }
        self.record_check(failure, hooks);
    }

    /// Starts the health command in the container.
    fn start_check(&self, command: &str, service: &Service, timeout: Duration) -> Result<Check> {
        let failed = |error| Error::sandbox("can't start the health command").source(error);
        let record = self.job.record;
        let spec = JoinSpec {
            argv: health::argv(command),
            env: self.job.env.clone(),
            cwd: record.cwd.clone(),
            cwd_or_root: true,
            user: None,
            bounded: !record.resources.is_unbounded(),
            kill_group: true,
        };
        let namespace = service.user_namespace().try_clone_to_owned().map_err(failed)?;
        let init = service.init_pidfd().try_clone_to_owned().map_err(failed)?;
        let secrets = record.secrets.clone();
        let (done, ends) = std::io::pipe().map_err(failed)?;
        let (sender, result) = channel();
        let run = move || {
            let join = |stdio| join(namespace.as_fd(), init.as_fd(), &spec, stdio);
            // The supervisor may be gone.
            let _ = sender.send(health::run(join, &secrets, timeout));
            drop(ends);
        };
        std::thread::Builder::new().spawn(run).map_err(failed)?;
        Ok(Check { done, result, began: Instant::now(), late: false })
    }

    /// Records the result of a check; restarts the service if it is unhealthy and this is wanted.
    fn record_check(&mut self, failure: Option<Failure>, hooks: &Hooks<'_>) {
        let (Some(watch), false) = (&mut self.watch, self.stopping) else { return };
        let health = self.status.health.get_or_insert_with(HealthStatus::starting);
        health.record(failure.as_ref(), now());
        let before = health.state;
        match failure {
            None => {
                health.failures = 0;
                health.state = HealthState::Healthy;
                watch.was_healthy = true;
                if before == HealthState::Unhealthy {
                    hooks.reporter.note(ServiceNote::Healthy.into());
                }
            }
            Some(_) if !watch.was_healthy && Instant::now() < watch.grace => {}
            Some(failure) => {
                health.failures = health.failures.saturating_add(1);
                if health.failures >= watch.settings.retries {
                    health.state = HealthState::Unhealthy;
                }
                let becomes = before != HealthState::Unhealthy;
                if health.state == HealthState::Unhealthy && becomes {
                    let reason = failure.to_string();
                    hooks.reporter.note(ServiceNote::Unhealthy { reason }.into());
                }
                if health.state == HealthState::Unhealthy
                    && watch.settings.on_failure == OnUnhealthy::Restart
                {
                    self.restart_unhealthy(hooks);
                }
            }
        }
        self.write_status();
    }

    /// Restarts all components, unless the number of the restart policy is used up.
    fn restart_unhealthy(&mut self, hooks: &Hooks<'_>) {
        let Some(watch) = &mut self.watch else { return };
        // Only a service that was healthy in between starts anew with its failures.
        let ran = if watch.was_healthy { Duration::MAX } else { Duration::ZERO };
        let Some(pause) = watch.backoff.pause_after(End::Exited(1), ran) else { return };
        watch.begin(pause);
        if let Some(health) = &mut self.status.health {
            health.state = HealthState::Starting;
            health.failures = 0;
            health.restarts = health.restarts.saturating_add(1);
        }
        hooks.reporter.note(ServiceNote::UnhealthyRestart.into());
        let (signal, seconds) = (self.job.record.stop_signal, self.job.record.stop_seconds());
        let now = Instant::now();
        let components = self.components.iter_mut().zip(&mut self.status.components);
        for (component, component_status) in components.filter(|(component, _)| component.running) {
            component_status.killed = false;
            component.restart_requested = true;
            component.stop(Some((signal, seconds)), now);
        }
    }
}
