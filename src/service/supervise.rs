//! Keeping a service running: starting its components, starting them again, stopping them, answering
//! those who ask. One process does it, until the service has ended: the monitor, or `svp run` itself.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::control::{Ask, Asker, Listener};
use super::log::Log;
use super::place::Place;
use super::record::{Record, Restart};
use super::relay;
use super::status::{Standing, Status, now, shell_code};
use crate::error::{Error, IoContext, Result};
use crate::progress::Reporter;
use crate::sandbox::{Component, End, Event, Sandbox, Service, ServiceSpec, Stream};

/// The first pause before a component is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What ran so long is well: its next failure is a first one.
const WELL: Duration = Duration::from_secs(10);
/// How often to look at the network.
const TICK: Duration = Duration::from_secs(2);
/// How long to wait for what was killed, before the whole container is.
const KILLED: Duration = Duration::from_secs(5);
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
        kept: Vec::new(),
        stopping: false,
        code: 0,
        killed_before: 0,
        unstartable: None,
    };
    let result = supervisor.containers(&logs, hooks);
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
    kept: Vec<Kept>,
    stopping: bool,
    code: i32,
    /// The processes of earlier containers that were killed because memory was used up.
    killed_before: u64,
    /// Why a component can't be started at all.
    unstartable: Option<Error>,
}

/// A component and what is to become of it.
struct Kept {
    component: Component,
    argv: Vec<String>,
    running: bool,
    /// Whether it has been told to start, and nothing was heard since.
    starting: bool,
    /// When it is to be started.
    next_start: Option<Instant>,
    /// When it is to be killed.
    deadline: Option<Instant>,
    /// Start it when it has ended, whatever the policy says.
    again: bool,
    since: Instant,
    pause: Duration,
    failures: u32,
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
    fn containers(&mut self, logs: &[Log], hooks: &mut Hooks<'_>) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        let mut failures = 0;
        loop {
            let since = Instant::now();
            let (service, components) =
                self.job.sandbox.start_service(self.job.spec, hooks.reporter)?;
            let over = self.container(service, components, logs, hooks)?;
            if over == Over::Done {
                return Ok(());
            }
            self.code = 137;
            hooks.reporter.note("the container was killed");
            failures += 1;
            let again = match self.job.record.restart {
                Restart::No => false,
                Restart::OnFailure(most) => most.is_none_or(|most| failures <= most),
                Restart::Always => true,
            };
            if !again || self.stopping {
                return Ok(());
            }
            if since.elapsed() > WELL {
                pause = FIRST_PAUSE;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn container(
        &mut self,
        mut service: Service,
        mut components: Vec<Component>,
        logs: &[Log],
        hooks: &mut Hooks<'_>,
    ) -> Result<Over> {
        let show = hooks.show;
        let over = AtomicBool::new(false);
        let listeners = std::mem::take(&mut service.listeners);
        std::thread::scope(|scope| {
            for (listener, to) in listeners.iter().zip(&self.job.spec.listen) {
                scope.spawn(|| relay::serve(listener, *to, &|| over.load(Ordering::SeqCst)));
            }
            for (number, (component, log)) in components.iter_mut().zip(logs).enumerate() {
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
            let commands = self.job.record.commands();
            self.kept =
                components.into_iter().zip(commands).map(|(c, argv)| Kept::new(c, argv)).collect();
            self.status.network = Some(service.network_kind);
            self.status.process_1 = service.process_1_number();
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
            self.start_due();
            if self.kept.iter().all(Kept::is_done) {
                return Ok(Over::Done);
            }
            let ready = self.wait(&service)?;
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
                self.job.place.set_status(&self.status)?;
                (hooks.started)();
            }
            if ready.signal {
                self.signalled(hooks);
            }
            if ready.control
                && let Some((asker, ask)) = self.listener.next()
            {
                self.answer(&asker, ask, &service);
            }
            if !self.enforce() {
                // Not even a kill ended it: the container's end will.
                return Ok(Over::Done);
            }
            if looked.elapsed() > TICK {
                looked = Instant::now();
                self.note_memory(&service, hooks);
                match service.mend_network() {
                    Ok(true) => {
                        hooks.reporter.note("the network was connected again: pasta had died")
                    }
                    Ok(false) => {}
                    Err(error) => hooks.reporter.note(&format!("the network is lost: {error}")),
                }
            }
        }
    }

    /// Starts the components whose time has come.
    fn start_due(&mut self) {
        let env = &self.job.env;
        for kept in &mut self.kept {
            if kept.next_start.is_some_and(|at| at <= Instant::now()) {
                kept.next_start = None;
                kept.running = true;
                kept.starting = true;
                kept.since = Instant::now();
                kept.component.start(kept.argv.clone(), env.clone(), &self.job.record.cwd);
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
            let _ = self.job.place.set_status(&self.status);
        }
    }

    /// Takes note of what became of a component; whether the container is still there.
    fn happened(&mut self, number: usize, event: Event, hooks: &mut Hooks<'_>) -> bool {
        let kept = &mut self.kept[number];
        kept.starting = false;
        let told = &mut self.status.components[number];
        told.since = now();
        match event {
            Event::Started => told.running = true,
            Event::NotStarted(error) => {
                kept.running = false;
                told.running = false;
                self.code = 127;
                self.status.error = Some(error.to_string());
                match self.status.standing {
                    Standing::Starting => self.unstartable = Some(error),
                    _ => hooks.reporter.note(&error.to_string()),
                }
            }
            Event::Ended(end) => {
                kept.running = false;
                kept.deadline = None;
                told.running = false;
                told.end = Some(end);
                if kept.should_restart(end, self.job.record.restart) && !self.stopping {
                    told.restarts += 1;
                    let what = format!("{} {}", told.name, ending(end));
                    let pause = kept.next_start.map_or(Duration::ZERO, |at| at - Instant::now());
                    hooks.reporter.note(&format!("{what}; it starts again in {pause:.1?}"));
                } else {
                    kept.next_start = None;
                    if self.code == 0 {
                        self.code = shell_code(end);
                    }
                }
            }
            Event::Gone => return false,
        }
        // The next status that can be written tells.
        let _ = self.job.place.set_status(&self.status);
        true
    }

    fn signalled(&mut self, hooks: &mut Hooks<'_>) {
        let mut byte = [0];
        let pipe = self.job.signals.try_clone().map(File::from);
        let _ = pipe.and_then(|mut pipe| pipe.read(&mut byte));
        if self.stopping {
            self.kept.iter_mut().for_each(|kept| kept.stop(None));
        } else {
            hooks.reporter.step("stopping");
            self.stop(STOP_SECONDS);
        }
    }

    fn stop(&mut self, seconds: u32) {
        self.stopping = true;
        self.status.standing = Standing::Stopping;
        let _ = self.job.place.set_status(&self.status);
        let signal = self.job.record.stop_signal;
        for kept in &mut self.kept {
            kept.next_start = None;
            kept.again = false;
            kept.stop(Some((signal, seconds)));
        }
    }

    fn answer(&mut self, asker: &Asker, ask: Ask, service: &Service) {
        match ask {
            Ask::Stop(seconds) => {
                self.stop(seconds);
                asker.answer(Ok(()), &[]);
            }
            Ask::Restart(name, seconds) => asker.answer(self.restart(&name, seconds), &[]),
            Ask::Signal(signal) => {
                self.kept.iter().for_each(|kept| kept.component.signal(signal));
                asker.answer(Ok(()), &[]);
            }
            Ask::Join => {
                asker.answer(Ok(()), &[service.user_namespace(), service.process_1()]);
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
    fn enforce(&mut self) -> bool {
        let now = Instant::now();
        for kept in self.kept.iter_mut().filter(|kept| kept.running) {
            let Some(deadline) = kept.deadline else { continue };
            if now > deadline + KILLED {
                return false;
            }
            if now >= deadline {
                kept.component.kill();
            }
        }
        true
    }

    fn wait(&self, service: &Service) -> Result<Ready> {
        let fixed: [BorrowedFd<'_>; 3] =
            [self.listener.as_fd(), self.job.signals.as_fd(), service.process_1()];
        let components = self.kept.iter().map(|kept| kept.component.as_fd());
        let mut fds: Vec<PollFd<'_>> = fixed
            .into_iter()
            .chain(components)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let times = self.kept.iter().flat_map(|kept| [kept.next_start, kept.deadline]);
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
        Ok(Ready {
            control: ready[0],
            signal: ready[1],
            container: ready[2],
            components: ready[3..].to_vec(),
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

impl Kept {
    fn new(component: Component, argv: Vec<String>) -> Kept {
        Kept {
            component,
            argv,
            running: false,
            starting: false,
            next_start: Some(Instant::now()),
            deadline: None,
            again: false,
            since: Instant::now(),
            pause: FIRST_PAUSE,
            failures: 0,
        }
    }

    fn is_done(&self) -> bool {
        !self.running && self.next_start.is_none()
    }

    /// Asks it to end: with a signal, and by force after so many seconds; at once by force if `None`.
    fn stop(&mut self, how: Option<(i32, u32)>) {
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

    /// Decides about what has ended; sets the time of its next start.
    fn should_restart(&mut self, end: End, policy: Restart) -> bool {
        if std::mem::take(&mut self.again) {
            self.next_start = Some(Instant::now());
            self.pause = FIRST_PAUSE;
            return true;
        }
        if self.since.elapsed() > WELL {
            self.pause = FIRST_PAUSE;
            self.failures = 0;
        }
        self.failures += 1;
        let restart = match policy {
            Restart::No => false,
            Restart::OnFailure(most) => {
                end != End::Exited(0) && most.is_none_or(|most| self.failures <= most)
            }
            Restart::Always => true,
        };
        if restart {
            self.next_start = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        restart
    }
}

fn ending(end: End) -> String {
    match end {
        End::Exited(code) => format!("exited with {code}"),
        End::Signaled(signal) => format!("was killed by signal {signal}"),
        End::TimedOut | End::TooMuchOutput => "was stopped".to_owned(),
    }
}
