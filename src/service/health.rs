//! Health checks: the health command succeeds, or, without one, something listens on every port.

use std::path::Path;
use std::time::{Duration, Instant};

use super::exec::run_captured;
use super::record::Record;
use super::service_dir::ServiceDir;
use super::status::State;
use crate::error::{Cause, Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::{End, Network, Transport};
use crate::store::Store;

/// Interval between health checks while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Minimum time for one health check, even if less of the time limit is left.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit of a health command, the default of docker and podman.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until a service is healthy.
///
/// # Errors
/// [`Kind::Script`] if the service ends first, or is not healthy within `limit`.
pub(crate) fn wait(root: &Path, service_dir: &ServiceDir, limit: Duration) -> Result<()> {
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
        let why = match check(root, service_dir, &record, left.min(DEFAULT_TIMEOUT)) {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
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

/// Returns why a service is unhealthy, or `None`. `timeout` limits the health command.
///
/// # Errors
/// Those of running its health command.
pub(crate) fn check(
    root: &Path,
    service_dir: &ServiceDir,
    record: &Record,
    timeout: Duration,
) -> Result<Option<String>> {
    let status = service_dir.status()?;
    if status.state != State::Running {
        return Ok(Some(format!("it is {}", status.state)));
    }
    if let Some(down) = status.components.iter().find(|component| !component.running) {
        return Ok(Some(format!("its component {} is down", down.name)));
    }
    if let Some(command) = &record.health {
        let store = Store::open(root)?;
        let argv = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let (end, output) = run_captured(&store, service_dir, record, argv, timeout)?;
        return Ok(match end {
            End::Exited(0) => None,
            End::TimedOut => {
                Some(format!("its health command took longer than {:.0} s", timeout.as_secs_f64()))
            }
            _ => {
                Some(output.lines().last().unwrap_or("its health command fails").trim().to_owned())
            }
        });
    }
    let Some(pid) = status.init_pid else { return Ok(None) };
    // In the host's network, other services' listeners on their own addresses don't count.
    let host_network = status.network == Some(Network::Host);
    let missing = record
        .ports
        .iter()
        .find(|forward| !listens(pid, forward.container, forward.protocol, host_network));
    Ok(missing.map(|forward| format!("nothing listens on its port {}", forward.container)))
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
