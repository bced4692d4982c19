//! Supervises a service: starts, restarts and stops its components, and answers requests. One process does so until
//! the service ends: the monitor, or `svp run` itself.

mod backoff;
mod component;
mod events;
mod health_schedule;
mod health_watch;
mod requests;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backoff::Backoff;
use component::SupervisedComponent;
use health_schedule::Watch;

use crate::error::{Error, IoContext, Result};
use crate::progress::{Reporter, ServiceNote};
use crate::sandbox::{Component, End, Sandbox, Service, ServiceSpec, Stream, serve};
use crate::service::control::{Listener, Request};
use crate::service::links::Link;
use crate::service::lock::container_still_exists;
use crate::service::log::Log;
use crate::service::process::Process;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::{State, Status, now, shell_code};

/// Interval between checks of the network, the logs and OOM kills.
const TICK: Duration = Duration::from_secs(2);

/// Callbacks of a supervisor.
pub(crate) struct Hooks<'a> {
    /// Called when every component has been started.
    pub started: &'a mut dyn FnMut(),
    /// Receives the output of a component, in whole lines.
    pub show: &'a (dyn Fn(usize, Stream, &[u8]) + Sync),
    /// Receives all other events.
    pub reporter: &'a dyn Reporter,
}

/// The service to supervise.
pub(crate) struct Job<'a> {
    /// The service's directory, whose lock the caller holds.
    pub service_dir: &'a ServiceDir,
    /// Its record.
    pub record: &'a Record,
    /// The sandbox of its container.
    pub sandbox: &'a Sandbox,
    /// The description of its container.
    pub spec: &'a ServiceSpec,
    /// The target of each of its link listeners.
    pub links: &'a [Link],
    /// The environment of all components.
    pub env: Vec<(String, String)>,
    /// Signal numbers received by svp, one byte each: the first requests a stop, the second a
    /// quick one.
    pub signals: OwnedFd,
}

/// Runs a service until it ends; returns its exit code.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if its container can't be created,
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn supervise(job: &Job<'_>, hooks: &mut Hooks<'_>) -> Result<i32> {
    let listener = Listener::bind(job.service_dir)?;
    let mut status = Status::new(&job.record.component_names());
    status.state = State::Starting;
    status.monitor = Some(std::process::id());
    status.started = Some(now());
    job.service_dir.set_status(&status)?;
    let mut logs = Vec::new();
    for name in &job.record.component_names() {
        let dir = job.service_dir.logs();
        logs.push(Log::open(&dir, name, job.record.logs).io("open the log in", &dir)?);
    }
    let mut supervisor = Supervisor {
        job,
        listener,
        status,
        logs: &logs,
        log_failure: None,
        components: Vec::new(),
        stopping: false,
        code: 0,
        earlier_oom_kills: 0,
        start_error: None,
        watch: None,
    };
    let result = supervisor.run(hooks);
    let status = &mut supervisor.status;
    status.state = State::Exited;
    status.ended = Some(now());
    status.components.iter_mut().for_each(|component| component.running = false);
    status.init_pid = None;
    match &result {
        Ok(()) => status.exit_code = Some(supervisor.code),
        Err(error) => {
            status.exit_code = Some(125);
            status.error = Some(error.to_string());
        }
    }
    job.service_dir.set_status(&supervisor.status)?;
    result.map(|()| supervisor.code)
}

struct Supervisor<'a> {
    job: &'a Job<'a>,
    listener: Listener,
    status: Status,
    logs: &'a [Log],
    /// Why a log can't be written.
    log_failure: Option<String>,
    components: Vec<SupervisedComponent>,
    stopping: bool,
    code: i32,
    /// Number of OOM kills in earlier containers.
    earlier_oom_kills: u64,
    /// Why a component can't be started at all.
    start_error: Option<Error>,
    /// The watch of its health, if it is watched.
    watch: Option<Watch>,
}

/// How a container ended.
#[derive(PartialEq, Eq)]
enum ContainerEnd {
    /// All its components have ended.
    Done,
    /// It was killed, from outside or by one of its own processes.
    Killed,
}

impl Supervisor<'_> {
    /// Runs a container, and another one each time it is killed and the restart policy demands it.
    fn run(&mut self, hooks: &mut Hooks<'_>) -> Result<()> {
        let mut backoff = Backoff::new(self.job.record.restart);
        loop {
            let since = Instant::now();
            match self.create_container(hooks) {
                Ok((service, components)) => {
                    if self.run_container(service, components, hooks)? == ContainerEnd::Done {
                        return Ok(());
                    }
                    hooks.reporter.note(ServiceNote::ContainerKilled.into());
                }
                Err(error) if self.status.state == State::Starting => return Err(error),
                // A container ran before, so the failure may be temporary.
                Err(error) => {
                    let reason = error.to_string();
                    hooks.reporter.note(ServiceNote::ContainerNotStarted { reason }.into());
                }
            }
            let killed = End::Signaled(libc::SIGKILL);
            self.code = shell_code(killed);
            let pause = backoff.pause_after(killed, since.elapsed());
            // A requested restart of a component needs a container, regardless of the policy.
            let requested = self.components.iter().any(|component| component.restart_requested);
            let pause = if requested { Some(Duration::ZERO) } else { pause };
            let Some(pause) = pause.filter(|_| !self.stopping) else { return Ok(()) };
            let delay_ms = milliseconds(pause);
            hooks.reporter.note(ServiceNote::ContainerRestart { delay_ms }.into());
            self.status.init_pid = None;
            for component_status in &mut self.status.components {
                component_status.running = false;
                component_status.restarts += 1;
                component_status.since = now();
                component_status.end = Some(killed);
            }
            self.write_status();
            if !self.pause(pause, hooks)? {
                return Ok(());
            }
        }
    }

    /// Creates a container, unless processes of the previous one still exist.
    fn create_container(&self, hooks: &Hooks<'_>) -> Result<(Service, Vec<Component>)> {
        if let Some(before) = self.status.container.as_ref().filter(|before| before.is_alive()) {
            return Err(container_still_exists(self.job.service_dir.name(), before));
        }
        self.job.sandbox.start_service(self.job.spec, hooks.reporter)
    }

    /// Waits between containers, answering requests; returns whether to start another container.
    fn pause(&mut self, pause: Duration, hooks: &mut Hooks<'_>) -> Result<bool> {
        self.components.clear();
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stopping {
            let ready = self.wait(None, Some(until))?;
            if ready.signal {
                self.handle_signal(hooks);
            }
            if ready.control
                && let Some((connection, request)) = self.listener.next()
            {
                if matches!(request, Request::Restart(..)) {
                    connection.answer(Ok(()), &[]);
                    return Ok(true);
                }
                self.handle_request(&connection, request, None);
            }
        }
        Ok(!self.stopping)
    }

    /// Writes the status. If that fails, the next write includes it.
    fn write_status(&mut self) {
        if self.log_failure.is_some() {
            self.status.error.clone_from(&self.log_failure);
        }
        // The next write includes it.
        let _ = self.job.service_dir.set_status(&self.status);
    }

    /// Reports when logs can't be written, and when they can be written again.
    fn check_logs(&mut self, hooks: &mut Hooks<'_>) {
        let names = self.status.components.iter().map(|component| &component.name);
        let log_failure = names.zip(self.logs).find_map(|(name, log)| {
            Some(format!("can't write the log of {name}: {}", log.failure()?))
        });
        if log_failure == self.log_failure {
            return;
        }
        let note = |reason| ServiceNote::LogLost { reason };
        hooks.reporter.note(log_failure.clone().map_or(ServiceNote::LogsWritten, note).into());
        self.status.error = None;
        self.log_failure = log_failure;
        self.write_status();
    }

    fn run_container(
        &mut self,
        mut service: Service,
        mut components: Vec<Component>,
        hooks: &mut Hooks<'_>,
    ) -> Result<ContainerEnd> {
        let show = hooks.show;
        let container_ended = AtomicBool::new(false);
        let listeners = std::mem::take(&mut service.link_listeners);
        std::thread::scope(|scope| {
            for (listener, to) in listeners.iter().zip(self.job.links) {
                scope.spawn(|| {
                    serve(listener, &|_| to.targets(), &|| container_ended.load(Ordering::SeqCst))
                });
            }
            for (number, (component, log)) in components.iter_mut().zip(self.logs).enumerate() {
                let show = move |stream, bytes: &[u8]| show(number, stream, bytes);
                for (stream, pipe) in [
                    (Stream::Stdout, component.stdout.take()),
                    (Stream::Stderr, component.stderr.take()),
                ] {
                    if let Some(pipe) = pipe {
                        scope.spawn(move || log.copy_from(stream, pipe, &show));
                    }
                }
            }
            let policy = self.job.record.restart;
            let commands = self.job.record.commands();
            let components = components.into_iter().zip(commands);
            self.components =
                components.map(|(c, argv)| SupervisedComponent::new(c, argv, policy)).collect();
            self.status.network = Some(service.network_kind);
            self.status.init_pid = service.init_pid();
            self.status.container = self.status.init_pid.and_then(Process::of);
            // Before any process of the service runs: the next start must know which process to wait for.
            self.write_status();
            self.earlier_oom_kills = self.status.memory_kills;
            self.begin_watch();
            // When this returns the container is gone, so the pipes are closed and the threads end.
            let result = self.supervise_container(service, hooks);
            // A check that still runs ends with the container.
            self.watch = None;
            container_ended.store(true, Ordering::SeqCst);
            result
        })
    }

    /// Runs one container until it ends.
    fn supervise_container(
        &mut self,
        mut service: Service,
        hooks: &mut Hooks<'_>,
    ) -> Result<ContainerEnd> {
        let mut first = true;
        let mut looked = Instant::now();
        loop {
            for component in &mut self.components {
                component.start_if_due(&self.job.env, &self.job.record.cwd);
            }
            if self.components.iter().all(SupervisedComponent::is_done) {
                return Ok(ContainerEnd::Done);
            }
            let ready = self.wait(Some(&service), None)?;
            if ready.container {
                self.report_oom_kills(&service, hooks);
                return Ok(ContainerEnd::Killed);
            }
            for (number, _) in ready.components.iter().enumerate().filter(|(_, ready)| **ready) {
                let event = self.components[number].component.event();
                self.report_oom_kills(&service, hooks);
                if !self.handle_event(number, event, hooks) {
                    return Ok(ContainerEnd::Killed);
                }
            }
            if first && self.components.iter().all(|component| !component.starting) {
                if let Some(error) = self.start_error.take() {
                    return Err(error);
                }
                first = false;
                self.status.state = State::Running;
                self.write_status();
                (hooks.started)();
            }
            if ready.signal {
                self.handle_signal(hooks);
            }
            if ready.control
                && let Some((connection, request)) = self.listener.next()
            {
                self.handle_request(&connection, request, Some(&service));
            }
            if !self.enforce(hooks) {
                // SIGKILL did not end the component; removing the container will.
                hooks.reporter.note(ServiceNote::ComponentStuck.into());
                return Ok(self.give_up_on_components());
            }
            self.watch_health(&service, hooks);
            if looked.elapsed() > TICK {
                looked = Instant::now();
                self.report_oom_kills(&service, hooks);
                self.check_logs(hooks);
                match service.reconnect_network() {
                    Ok(true) => hooks.reporter.note(ServiceNote::NetworkRestored.into()),
                    Ok(false) => {}
                    Err(error) => {
                        let reason = error.to_string();
                        hooks.reporter.note(ServiceNote::NetworkLost { reason }.into());
                    }
                }
            }
        }
    }

    /// Reports OOM kills since the last call.
    fn report_oom_kills(&mut self, service: &Service, hooks: &Hooks<'_>) {
        let kills = self.earlier_oom_kills + service.memory_kills();
        if kills > self.status.memory_kills {
            self.status.memory_kills = kills;
            hooks.reporter.note(ServiceNote::OutOfMemory.into());
            self.write_status();
        }
    }
}

fn milliseconds(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}
