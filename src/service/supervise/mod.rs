//! Keeping a service running: starting its components, starting them again, stopping them, answering
//! those who ask. One process does it, until the service has ended: the monitor, or `svp run` itself.

mod asked;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, IoContext, Result};
use crate::progress::Reporter;
use crate::sandbox::{Component, End, Event, Sandbox, Service, ServiceSpec, Stream, serve};
use crate::service::control::{Ask, Listener};
use crate::service::kept::{Kept, Patience};
use crate::service::links::Link;
use crate::service::lock::still_there;
use crate::service::log::Log;
use crate::service::place::Place;
use crate::service::process::Process;
use crate::service::record::Record;
use crate::service::status::{Standing, Status, now, shell_code};

/// How often to look at the network.
const TICK: Duration = Duration::from_secs(2);
/// How long Ctrl-C and SIGTERM give a service; seconds.
pub const STOP_SECONDS: u32 = 10;

/// What a supervisor tells while it works.
pub struct Hooks<'a> {
    /// Every component has been started.
    pub started: &'a mut dyn FnMut(),
    /// What a component prints, lines together.
    pub show: &'a (dyn Fn(usize, Stream, &[u8]) + Sync),
    /// Everything else.
    pub reporter: &'a dyn Reporter,
}

/// What to run.
pub struct Job<'a> {
    /// The service's place, whose lock the caller holds.
    pub place: &'a Place,
    /// What it is.
    pub record: &'a Record,
    /// Where its container is made.
    pub sandbox: &'a Sandbox,
    /// What that is.
    pub spec: &'a ServiceSpec,
    /// Where each door of it leads.
    pub links: &'a [Link],
    /// The environment of all components.
    pub env: Vec<(String, String)>,
    /// The numbers of signals that svp gets, a byte each: the first asks for a stop, the second for a
    /// quick one.
    pub signals: OwnedFd,
}

/// Runs a service until it has ended; gives its exit code.
///
/// # Errors
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if its container can't be made,
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub fn supervise(job: &Job<'_>, hooks: &mut Hooks<'_>) -> Result<i32> {
    let listener = Listener::bind(job.place)?;
    let mut status = Status::new(&job.record.component_names());
    status.standing = Standing::Starting;
    status.monitor = Some(std::process::id());
    status.started = Some(now());
    job.place.set_status(&status)?;
    let mut logs = Vec::new();
    for name in &job.record.component_names() {
        let dir = job.place.logs();
        logs.push(Log::open(&dir, name, job.record.logs).io("open the log in", &dir)?);
    }
    let mut supervisor = Supervisor {
        job,
        listener,
        status,
        logs: &logs,
        lost: None,
        kept: Vec::new(),
        stopping: false,
        code: 0,
        killed_before: 0,
        unstartable: None,
    };
    let result = supervisor.containers(hooks);
    let status = &mut supervisor.status;
    status.standing = Standing::Exited;
    status.ended = Some(now());
    status.components.iter_mut().for_each(|component| component.running = false);
    status.process_1 = None;
    match &result {
        Ok(()) => status.exit_code = Some(supervisor.code),
        Err(error) => {
            status.exit_code = Some(125);
            status.error = Some(error.to_string());
        }
    }
    job.place.set_status(&supervisor.status)?;
    result.map(|()| supervisor.code)
}

struct Supervisor<'a> {
    job: &'a Job<'a>,
    listener: Listener,
    status: Status,
    logs: &'a [Log],
    /// Why a log can't be written.
    lost: Option<String>,
    kept: Vec<Kept>,
    stopping: bool,
    code: i32,
    /// The processes of earlier containers that were killed because memory was used up.
    killed_before: u64,
    /// Why a component can't be started at all.
    unstartable: Option<Error>,
}

/// Why a container is no more.
#[derive(PartialEq, Eq)]
enum Over {
    /// All its components have ended.
    Done,
    /// It was killed from outside, or from inside with its keepers.
    Killed,
}

impl Supervisor<'_> {
    /// One container after another, as long as they die by themselves and the policy says so.
    fn containers(&mut self, hooks: &mut Hooks<'_>) -> Result<()> {
        let mut patience = Patience::new(self.job.record.restart);
        loop {
            let since = Instant::now();
            match self.make(hooks) {
                Ok((service, components)) => {
                    if self.container(service, components, hooks)? == Over::Done {
                        return Ok(());
                    }
                    hooks.reporter.note("the container was killed");
                }
                Err(error) if self.status.standing == Standing::Starting => return Err(error),
                // There was one before: what it lacks now it may have in a moment.
                Err(error) => hooks.reporter.note(&error.to_string()),
            }
            let killed = End::Signaled(libc::SIGKILL);
            self.code = shell_code(killed);
            let pause = patience.pause_after(killed, since.elapsed());
            // A component that was to be started anew needs a container, whatever the policy says.
            let asked = self.kept.iter().any(|kept| kept.again);
            let pause = if asked { Some(Duration::ZERO) } else { pause };
            let Some(pause) = pause.filter(|_| !self.stopping) else { return Ok(()) };
            hooks.reporter.note(&format!("another container is made in {pause:.1?}"));
            self.status.process_1 = None;
            for told in &mut self.status.components {
                told.running = false;
                told.restarts += 1;
                told.since = now();
                told.end = Some(killed);
            }
            self.tell();
            if !self.pause(pause, hooks)? {
                return Ok(());
            }
        }
    }

    /// Makes a container, if nothing is left of the one before.
    fn make(&self, hooks: &Hooks<'_>) -> Result<(Service, Vec<Component>)> {
        if let Some(before) = self.status.container.as_ref().filter(|before| before.is_left()) {
            return Err(still_there(self.job.place.name(), before));
        }
        self.job.sandbox.start_service(self.job.spec, hooks.reporter)
    }

    /// Waits without a container, answering who asks; whether another container is wanted.
    fn pause(&mut self, pause: Duration, hooks: &mut Hooks<'_>) -> Result<bool> {
        self.kept.clear();
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stopping {
            let ready = self.wait(None, Some(until))?;
            if ready.signal {
                self.signalled(hooks);
            }
            if ready.control
                && let Some((asker, ask)) = self.listener.next()
            {
                if matches!(ask, Ask::Restart(..)) {
                    asker.answer(Ok(()), &[]);
                    return Ok(true);
                }
                self.answer(&asker, ask, None);
            }
        }
        Ok(!self.stopping)
    }

    /// Writes down how it is. What can't be written now the next one tells.
    fn tell(&mut self) {
        if self.lost.is_some() {
            self.status.error.clone_from(&self.lost);
        }
        let _ = self.job.place.set_status(&self.status);
    }

    /// Tells of logs that can't be written, and when they can be again.
    fn look_at_logs(&mut self, hooks: &mut Hooks<'_>) {
        let names = self.status.components.iter().map(|component| &component.name);
        let lost = names.zip(self.logs).find_map(|(name, log)| {
            Some(format!("can't write the log of {name}: {}", log.failure()?))
        });
        if lost == self.lost {
            return;
        }
        hooks.reporter.note(lost.as_deref().unwrap_or("the logs are written again"));
        self.status.error = None;
        self.lost = lost;
        self.tell();
    }

    fn container(
        &mut self,
        mut service: Service,
        mut components: Vec<Component>,
        hooks: &mut Hooks<'_>,
    ) -> Result<Over> {
        let show = hooks.show;
        let over = AtomicBool::new(false);
        let doors = std::mem::take(&mut service.doors);
        std::thread::scope(|scope| {
            for (door, to) in doors.iter().zip(self.job.links) {
                scope.spawn(|| serve(door, &|_| to.leads(), &|| over.load(Ordering::SeqCst)));
            }
            for (number, (component, log)) in components.iter_mut().zip(self.logs).enumerate() {
                let show = move |stream, bytes: &[u8]| show(number, stream, bytes);
                for (stream, pipe) in [
                    (Stream::Stdout, component.stdout.take()),
                    (Stream::Stderr, component.stderr.take()),
                ] {
                    if let Some(pipe) = pipe {
                        scope.spawn(move || log.keep(stream, pipe, &show));
                    }
                }
            }
            let policy = self.job.record.restart;
            let commands = self.job.record.commands();
            let kept = components.into_iter().zip(commands);
            self.kept = kept.map(|(c, argv)| Kept::new(c, argv, policy)).collect();
            self.status.network = Some(service.network_kind);
            self.status.process_1 = service.process_1_number();
            self.status.container = self.status.process_1.and_then(Process::of);
            // Before anything of the service runs: whoever starts it next must know whom to wait for.
            self.tell();
            self.killed_before = self.status.memory_kills;
            // When this returns the container is gone, so that the pipes end and the threads with them.
            let result = self.serve(service, hooks);
            over.store(true, Ordering::SeqCst);
            result
        })
    }

    /// Runs one container until it is over.
    fn serve(&mut self, mut service: Service, hooks: &mut Hooks<'_>) -> Result<Over> {
        let mut first = true;
        let mut looked = Instant::now();
        loop {
            for kept in &mut self.kept {
                kept.start_if_due(&self.job.env, &self.job.record.cwd);
            }
            if self.kept.iter().all(Kept::is_done) {
                return Ok(Over::Done);
            }
            let ready = self.wait(Some(&service), None)?;
            if ready.container {
                self.note_memory(&service, hooks);
                return Ok(Over::Killed);
            }
            for (number, _) in ready.components.iter().enumerate().filter(|(_, ready)| **ready) {
                let event = self.kept[number].component.event();
                self.note_memory(&service, hooks);
                if !self.happened(number, event, hooks) {
                    return Ok(Over::Killed);
                }
            }
            if first && self.kept.iter().all(|kept| !kept.starting) {
                if let Some(error) = self.unstartable.take() {
                    return Err(error);
                }
                first = false;
                self.status.standing = Standing::Running;
                self.tell();
                (hooks.started)();
            }
            if ready.signal {
                self.signalled(hooks);
            }
            if ready.control
                && let Some((asker, ask)) = self.listener.next()
            {
                self.answer(&asker, ask, Some(&service));
            }
            if !self.enforce() {
                // Not even a kill ended it: the container's end will.
                hooks.reporter.note("what was killed does not end: the whole container is killed");
                return Ok(self.given_up());
            }
            if looked.elapsed() > TICK {
                looked = Instant::now();
                self.note_memory(&service, hooks);
                self.look_at_logs(hooks);
                match service.mend_network() {
                    Ok(true) => hooks
                        .reporter
                        .note("the network was connected again: what carries it had died"),
                    Ok(false) => {}
                    Err(error) => hooks.reporter.note(&format!("the network is lost: {error}")),
                }
            }
        }
    }

    /// Says so if the kernel has killed processes because the service's memory was used up.
    fn note_memory(&mut self, service: &Service, hooks: &Hooks<'_>) {
        let kills = self.killed_before + service.memory_kills();
        if kills > self.status.memory_kills {
            self.status.memory_kills = kills;
            hooks.reporter.note(
                "its memory was used up, and the kernel has killed a process: \
                 give it more with --memory",
            );
            self.tell();
        }
    }

    /// Takes note of what became of a component; whether the container is still there.
    fn happened(&mut self, number: usize, event: Event, hooks: &mut Hooks<'_>) -> bool {
        self.kept[number].starting = false;
        match event {
            Event::Started => {
                let told = &mut self.status.components[number];
                told.running = true;
                told.since = now();
                if self.status.components.iter().all(|told| told.running) {
                    self.status.error = None;
                }
            }
            Event::NotStarted(error) => {
                self.status.error = Some(error.to_string());
                if self.status.standing == Standing::Starting {
                    self.kept[number].running = false;
                    self.unstartable = Some(error);
                } else {
                    // It could be started once: what it lacks now it may have in a moment.
                    hooks.reporter.note(&error.to_string());
                    self.ended(number, End::Exited(127), hooks);
                }
            }
            Event::Ended(end) => self.ended(number, end, hooks),
            Event::Gone => return false,
        }
        self.tell();
        true
    }

    fn ended(&mut self, number: usize, end: End, hooks: &mut Hooks<'_>) {
        let told = &mut self.status.components[number];
        told.running = false;
        told.end = Some(end);
        told.since = now();
        match self.kept[number].ended(end, self.stopping) {
            Some(pause) => {
                told.restarts += 1;
                let what = format!("{} {}", told.name, ending(end));
                hooks.reporter.note(&format!("{what}; it starts again in {pause:.1?}"));
            }
            None if self.code == 0 => self.code = shell_code(end),
            None => {}
        }
    }

    /// Waits for whatever is next, until then at most.
    fn wait(&self, service: Option<&Service>, until: Option<Instant>) -> Result<Ready> {
        let fixed: [BorrowedFd<'_>; 2] = [self.listener.as_fd(), self.job.signals.as_fd()];
        let components = self.kept.iter().map(|kept| kept.component.as_fd());
        let mut fds: Vec<PollFd<'_>> = fixed
            .into_iter()
            .chain(components)
            .chain(service.map(Service::process_1))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let times = self.kept.iter().flat_map(|kept| [kept.next_start, kept.deadline]);
        let times = times.chain([until]);
        let next = times.flatten().min().map(|at| at.saturating_duration_since(Instant::now()));
        // A deadline that has passed is enforced again and again, not without a pause.
        let pause = next.unwrap_or(TICK).clamp(Duration::from_millis(10), TICK);
        let pause =
            Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        match poll(&mut fds, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let error = std::io::Error::from(error);
                return Err(Error::sandbox("can't listen to the service").source(error));
            }
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let components = 2..2 + self.kept.len();
        Ok(Ready {
            control: ready[0],
            signal: ready[1],
            container: ready[components.end..].contains(&true),
            components: ready[components].to_vec(),
        })
    }
}

/// Which of those that a supervisor listens to have something to say.
struct Ready {
    control: bool,
    signal: bool,
    container: bool,
    components: Vec<bool>,
}

fn ending(end: End) -> String {
    match end {
        End::Exited(code) => format!("exited with {code}"),
        End::Signaled(signal) => format!("was killed by signal {signal}"),
        End::TimedOut | End::TooMuchOutput => "was stopped".to_owned(),
    }
}
