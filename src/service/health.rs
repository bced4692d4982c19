//! Health checks: the health command succeeds, or, without one, something listens on every port.

use std::path::Path;
use std::time::{Duration, Instant};

use super::exec::{join_container, run_captured, spec};
use super::health_watch::{Failure, HealthStatus};
use super::record::Record;
use super::service_dir::ServiceDir;
use super::status::{State, Status, now};
use crate::error::{Cause, Error, Kind, Result};
use crate::interrupt;
use crate::pack::query::StopSignal;
use crate::progress::{Reporter, Step, announce_if_slow};
use crate::sandbox::{End, JoinSpec, Joined, Network, Stdio, Transport};
use crate::secret::Secret;
use crate::store::Store;

/// Interval between health checks while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Minimum time for one health check, even if less of the time limit is left.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How many lines of a health command's output are kept.
const LINES: usize = 20;
/// The file of the last check that a command made, in the service's directory.
const CHECKED: &str = "health.json";

/// Waits until a service is healthy.
///
/// # Errors
/// [`Kind::Script`] if the service ends first, or is not healthy within `limit`.
pub(crate) fn wait(
    root: &Path,
    service_dir: &ServiceDir,
    limit: Duration,
    reporter: &dyn Reporter,
) -> Result<()> {
    let step = Step::WaitForHealth { service: service_dir.name().to_owned() };
    announce_if_slow(reporter, step, || poll(root, service_dir, limit))
}

fn poll(root: &Path, service_dir: &ServiceDir, limit: Duration) -> Result<()> {
    let record = service_dir.record()?;
    let since = Instant::now();
    let name = service_dir.name();
    loop {
        let status = service_dir.status()?;
        if !matches!(status.state, State::Starting | State::Running) {
            let code = status.exit_code.map_or(String::new(), |code| format!(" with {code}"));
            return Err(Error::new(Kind::Script, format!("the service {name} has ended{code}"))
                .hint(format!("`svp logs {name}` shows its output")));
        }
        let left = limit.saturating_sub(since.elapsed()).max(MIN_TIMEOUT);
        let why = match check(root, service_dir, &record, left.min(record.health_timeout())) {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why.to_string(),
            // The service may have ended during the health command; the next status check shows that.
            Err(error) if has_ended(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        if since.elapsed() > limit {
            let seconds = limit.as_secs();
            return Err(Error::new(
                Kind::Script,
                format!("{name} is not healthy after {seconds} s: {why}"),
            )
            .hint(format!("it keeps running; `svp logs {name}` shows its output")));
        }
        interrupt::check()?;
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether a health command failed because its container has ended.
fn has_ended(error: &Error) -> bool {
    error.kind() == Kind::Sandbox
        || error.is(Cause::ServiceNotRunning)
        || error.is(Cause::ContainerGone)
}

/// Returns why a service is unhealthy, or `None`. `timeout` limits the health command. The result is kept for
/// [`last_check`].
///
/// # Errors
/// Those of running its health command.
pub(crate) fn check(
    root: &Path,
    service_dir: &ServiceDir,
    record: &Record,
    timeout: Duration,
) -> Result<Option<Failure>> {
    let status = service_dir.status()?;
    if status.state != State::Running {
        return Ok(Some(Failure::new(format!("it is {}", status.state))));
    }
    let failure = match (component_down(&status), &record.health) {
        (Some(down), _) => Some(down),
        (None, Some(command)) => {
            let spec = {
                let store = Store::open(root)?;
                JoinSpec { kill_group: true, ..spec(&store, record, argv(command))? }
            };
            let join = |stdio| join_container(service_dir, &spec, stdio);
            run(join, &record.secrets, timeout)?
        }
        (None, None) => unheard_port(&status, record),
    };
    let kept = (status.started, HealthStatus::of_check(failure.as_ref(), now()));
    // Only for display.
    let _ = service_dir.write(CHECKED, &kept, false);
    Ok(failure)
}

/// Returns what is known of the health of a running service: the result of its watch, else that of the last command
/// that checked it, or whether its ports listen.
pub(crate) fn known(
    service_dir: &ServiceDir,
    record: &Record,
    status: &Status,
) -> Option<HealthStatus> {
    if status.state != State::Running {
        return None;
    }
    if record.health_watch.is_some() {
        return status.health.clone();
    }
    if record.health.is_none() {
        let failure = component_down(status).or_else(|| unheard_port(status, record));
        return Some(HealthStatus::of_check(failure.as_ref(), now()));
    }
    let (started, health) = service_dir.read::<(Option<i64>, HealthStatus)>(CHECKED).ok()?;
    (started == status.started).then_some(health)
}

/// The command line of a health command.
pub(super) fn argv(command: &str) -> Vec<String> {
    ["/bin/sh", "-c", command].map(str::to_owned).to_vec()
}

/// Runs a health command; returns why it failed, or `None`.
///
/// # Errors
/// Those of `join`; [`Kind::Storage`], [`Kind::Interrupted`].
pub(super) fn run(
    join: impl FnOnce(Stdio) -> Result<Joined>,
    secrets: &[(String, Secret)],
    timeout: Duration,
) -> Result<Option<Failure>> {
    let (end, output) = match run_captured(join, secrets, timeout) {
        Err(error) if error.is(Cause::CommandNotFound) || error.is(Cause::CommandNotExecutable) => {
            return Ok(Some(Failure::new(format!("its health command can't run: {error}"))));
        }
        other => other?,
    };
    let reason = match end {
        End::Exited(0) => return Ok(None),
        End::Exited(code) => format!("its health command exited with {code}"),
        End::Signaled(signal) => {
            format!("its health command was killed by {}", StopSignal(signal))
        }
        End::TimedOut | End::TooMuchOutput => {
            format!("its health command took longer than {:.0} s", timeout.as_secs_f64())
        }
    };
    Ok(Some(Failure { reason, output: last_lines(&output) }))
}

/// Returns the last lines of an output, without control characters.
fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    last.join("\n").chars().map(shown).collect()
}

/// Returns which component of a running service is down.
pub(super) fn component_down(status: &Status) -> Option<Failure> {
    let down = status.components.iter().find(|component| !component.running)?;
    Some(Failure::new(format!("its component {} is down", down.name)))
}

/// Returns which port of a running service nothing listens on.
pub(super) fn unheard_port(status: &Status, record: &Record) -> Option<Failure> {
    let pid = status.init_pid?;
    // In the host's network, other services' listeners on their own addresses don't count.
    let host_network = status.network == Some(Network::Host);
    let missing = record
        .ports
        .iter()
        .find(|forward| !listens(pid, forward.container, forward.protocol, host_network))?;
    Some(Failure::new(format!("nothing listens on its port {}", missing.container)))
}

/// Whether something in the network namespace of process `pid` listens on a port. In the host's network, sockets on
/// addresses of services (127.83.0.0/16) don't count.
fn listens(pid: u32, port: u16, protocol: Transport, host_network: bool) -> bool {
    // Socket states of include/net/tcp_states.h: TCP_LISTEN, and TCP_CLOSE for an unconnected UDP socket.
    let (files, state) = match protocol {
        Transport::Tcp => (["tcp", "tcp6"], "0A"),
        Transport::Udp => (["udp", "udp6"], "07"),
    };
    files.iter().any(|file| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().and_then(|local| local.rsplit_once(':'));
            let found = local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            let at = local.and_then(|(address, _)| u32::from_str_radix(address, 16).ok());
            let service = at.is_some_and(|at| at.to_ne_bytes()[..2] == [127, 83]);
            !(host_network && service) && found == Some(port) && words.nth(1) == Some(state)
        })
    })
}
