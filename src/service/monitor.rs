//! The monitor of a background service: one process per service, like podman's conmon.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};
use serde::{Deserialize, Serialize};

use super::backup::cutover;
use super::lifecycle::delete;
use super::lock::MonitorEnd;
use super::prepare::prepare;
use super::record::Record;
use super::service_dir::ServiceDir;
use super::supervise::{Hooks, Job, supervise};
use crate::diagnostics;
use crate::error::{Error, Result, WireError};
use crate::interrupt;
use crate::progress::{Event, Note, Reporter, Step, Warning};
use crate::sandbox::{self, Sandbox};
use crate::store::{Store, StoreLayout};

/// The `argv[0]` of a monitor; see [`run_if_monitor`].
const MONITOR_NAME: &str = "svp-monitor";

/// The size at which a monitor rotates its own log, in bytes: a service that restarts every minute must not fill the
/// disk.
const LONGEST_LOG: u64 = 1 << 20;

/// Messages of a monitor to the command that started it, one per line.
#[derive(Serialize, Deserialize)]
enum MonitorEvent {
    Step(Step),
    Note(Note),
    Warning(Warning),
    Started,
    Failed(WireError),
}

/// Starts a service's monitor, and waits until the service has started.
///
/// # Errors
/// Those of starting the service; [`Kind::Usage`](crate::error::Kind::Usage) if it is running already, or is a copy
/// left by a killed restore.
pub(crate) fn start(root: &Path, service_dir: &ServiceDir, reporter: &dyn Reporter) -> Result<()> {
    if let Some(name) = service_dir.record()?.candidate_for {
        return Err(Error::usage(format!(
            "{} was left by a killed restore of {name}",
            service_dir.name()
        ))
        .hint("`svp prune` removes it, and so does the next start of the service"));
    }
    let log = service_dir.open_to_append("monitor.log")?;
    let failed = |error| Error::sandbox("can't start a monitor").source(error);
    let mut command = Command::new("/proc/self/exe");
    command.arg0(MONITOR_NAME).arg(root).arg(service_dir.name()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
    command.envs(diagnostics::environment());
    let mut child = command.spawn().map_err(failed)?;
    let lines = BufReader::new(
        child.stdout.take().ok_or_else(|| Error::sandbox("the monitor has no standard output"))?,
    );
    for line in lines.lines() {
        match serde_json::from_str(&line.map_err(failed)?) {
            Ok(MonitorEvent::Step(step)) => reporter.step(step),
            Ok(MonitorEvent::Note(note)) => reporter.note(note),
            Ok(MonitorEvent::Warning(warning)) => reporter.warning(warning),
            Ok(MonitorEvent::Started) => return Ok(()),
            Ok(MonitorEvent::Failed(error)) => {
                // Only reap it: the error is known.
                let _ = child.wait();
                return Err(error.into());
            }
            Err(error) => return Err(Error::sandbox("invalid monitor message").source(error)),
        }
    }
    let status = child.wait().map_err(failed)?;
    Err(Error::sandbox(format!("the monitor ended: {status}"))
        .hint(format!("its messages are in {}", service_dir.monitor_log().display())))
}

/// Formats an event as a line of text; `None` if the event is not shown.
pub(crate) type Words = fn(&Event<'_>) -> Option<String>;

/// Runs the monitor if this process was started as one; `main` calls this first. `words` formats the events in the
/// monitor's log.
pub(crate) fn run_if_monitor(words: Words) -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != MONITOR_NAME {
        return None;
    }
    // A lock file inherited from a calling script would stay locked as long as the service runs.
    // Without /proc no stage starts, and it says so.
    let _ = sandbox::close_inherited();
    let root = PathBuf::from(arguments.next()?);
    let name = arguments.next()?.into_string().ok()?;
    diagnostics::start_inherited();
    interrupt::install();
    // EPERM: it leads a process group already.
    let _ = nix::unistd::setsid();
    let log = ServiceDir::of(&root, &name).ok()?.monitor_log();
    let sender = EventSender { started: Mutex::new(false), log, words };
    let result = monitor(&root, &name, &sender);
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sender.log(&format!("error: {error}"));
            sender.send(&MonitorEvent::Failed(error.into()));
            ExitCode::FAILURE
        }
    })
}

fn monitor(root: &Path, name: &str, sender: &EventSender) -> Result<()> {
    let service_dir = ServiceDir::existing(root, name)?;
    let signals = interrupt::signals_to_pipe()
        .map_err(|error| Error::sandbox("can't create a pipe").source(error))?;
    let mut started = || sender.started();
    let mut hooks = Hooks { started: &mut started, show: &|_, _, _| {}, reporter: sender };
    run(root, &service_dir, signals, &mut hooks).map(drop)
}

/// Runs a service in this process until it ends; returns its exit code.
///
/// # Errors
/// Those of starting it; [`Kind::Usage`](crate::error::Kind::Usage) if it runs already.
pub(crate) fn run(
    root: &Path,
    service_dir: &ServiceDir,
    signals: std::os::fd::OwnedFd,
    hooks: &mut Hooks<'_>,
) -> Result<i32> {
    let name = service_dir.name();
    let mut lock = service_dir.lock()?.ok_or_else(|| {
        Error::usage(format!("the service {name} is running already"))
            .hint(format!("`svp restart {name}` restarts it"))
    })?;
    service_dir.wait_for_container(hooks.reporter)?;
    let sandbox = Sandbox::create(&StoreLayout::new(root).trees())?;
    match service_dir.record()?.candidate_for {
        None => cutover::recover_and_collect(root, service_dir, &sandbox)?,
        Some(_) => cutover::recover(service_dir, &sandbox)?,
    }
    let mut record: Record = service_dir.record()?;
    // Close the store before supervising: removing images must not wait for services.
    let prepared = {
        let store = Store::open(root)?;
        prepare(&store, &sandbox, service_dir, &mut record, hooks.reporter)?
    };
    let job = Job {
        service_dir,
        record: &record,
        sandbox: &sandbox,
        spec: &prepared.spec,
        links: &prepared.links,
        env: prepared.env,
        signals,
    };
    let code = supervise(&job, hooks);
    // For waiting commands; the status has it too.
    let _ = lock.write_all(end(service_dir, &code).to_text().as_bytes());
    if record.remove {
        delete(service_dir, &record, &sandbox, &|_| false)?;
    }
    drop(lock);
    code
}

/// How the service ended, for waiting commands.
fn end(service_dir: &ServiceDir, code: &Result<i32>) -> MonitorEnd {
    let components = service_dir.last_status().map(|status| status.components).unwrap_or_default();
    let killed = components.into_iter().filter(|component| component.killed);
    let killed = killed.map(|component| component.name).collect();
    MonitorEnd { code: *code.as_ref().unwrap_or(&125), killed }
}

/// A monitor's reporter: writes events to the monitor's log and, until the service has started, to the command that
/// started the monitor.
struct EventSender {
    started: Mutex<bool>,
    /// The destination of its standard error.
    log: PathBuf,
    words: Words,
}

impl EventSender {
    fn send(&self, event: &MonitorEvent) {
        let Ok(started) = self.started.lock() else { return };
        if *started {
            return;
        }
        let text = serde_json::to_string(event).expect("plain data");
        // The command that started the monitor may be gone.
        let _ = write_line(stdout(), &text);
    }

    fn started(&self) {
        self.send(&MonitorEvent::Started);
        if let Ok(mut started) = self.started.lock() {
            *started = true;
        }
        // A reader waiting for end of file must not wait for the service to end.
        let null = File::options().write(true).open("/dev/null");
        if let Ok(null) = null {
            // The old descriptor stays usable.
            let _ = dup2_stdout(&null);
        }
    }

    fn log(&self, text: &str) {
        self.rotate();
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        // The reader may be gone.
        let _ = write_line(stderr(), &format!("{time} {text}"));
    }
}

impl EventSender {
    /// Rotates the log when it has reached its maximum size; one old file is kept. If that fails, the current file is
    /// written on.
    fn rotate(&self) {
        if !self.log.metadata().is_ok_and(|log| log.len() > LONGEST_LOG) {
            return;
        }
        // If this fails, the same file is opened again.
        let _ = std::fs::rename(&self.log, self.log.with_extension("log.1"));
        if let Ok(log) = File::options().create(true).append(true).open(&self.log) {
            // The old descriptor stays usable.
            let _ = dup2_stderr(&log);
        }
    }
}

/// Writes a line to a monitor's standard output, which leads to the command that started it, or to its standard error,
/// which is its log.
fn write_line(fd: BorrowedFd<'_>, text: &str) -> std::io::Result<()> {
    File::from(fd.try_clone_to_owned()?).write_all(format!("{text}\n").as_bytes())
}

impl Reporter for EventSender {
    fn event(&self, event: Event<'_>) {
        if let Some(line) = (self.words)(&event) {
            self.log(&line);
        }
        match event {
            Event::Step(step) => self.send(&MonitorEvent::Step(step)),
            Event::Note(note) => self.send(&MonitorEvent::Note(note)),
            Event::Warning(warning) => self.send(&MonitorEvent::Warning(warning)),
            _ => {}
        }
    }
}
