//! Restarts a service, or some of its components while the others keep running.

use std::path::Path;
use std::time::{Duration, Instant};

use super::start::{Start, start};
use super::stop::{Deadline, Stop, stop};
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::progress::{Reporter, announce_if_slow};
use crate::service::control::{self, Request};
use crate::service::links;
use crate::service::service_dir::ServiceDir;
use crate::service::status::ComponentStatus;

/// Interval at which a restarting component is polled.
const LOOK: Duration = Duration::from_millis(20);
/// How long a component may take to start again after its end.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A request to restart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restart {
    /// The components; the whole service if none is named.
    pub components: Vec<String>,
    /// How to stop it.
    pub stop: Stop,
}

/// Restarts a service or components of it, and waits until they have started.
///
/// # Errors
/// Those of stopping and starting it; [`Kind::Usage`] for a service run with `--rm`, or an unknown component;
/// [`Kind::Script`] if a component does not start again.
pub(crate) fn restart(
    root: &Path,
    service_dir: &ServiceDir,
    request: &Restart,
    reporter: &dyn Reporter,
) -> Result<()> {
    if request.components.is_empty() {
        return restart_service(root, service_dir, &request.stop, reporter);
    }
    let mut components = request.components.iter();
    components.try_for_each(|name| restart_component(service_dir, name, &request.stop, reporter))
}

fn restart_service(
    root: &Path,
    service_dir: &ServiceDir,
    how: &Stop,
    reporter: &dyn Reporter,
) -> Result<()> {
    let record = service_dir.record()?;
    if record.remove && service_dir.is_running()? {
        let name = service_dir.name();
        return Err(Error::usage(format!("{name} was run with --rm and would be removed"))
            .hint("use `svp run` again, without --rm to keep the service"));
    }
    // Do not stop a service that could not start again.
    links::resolve(root, &record)?;
    stop(service_dir, how, reporter)?;
    start(root, service_dir, &Start::default(), reporter)
}

/// Restarts one component, and waits until it runs again.
fn restart_component(
    service_dir: &ServiceDir,
    name: &str,
    request: &Stop,
    reporter: &dyn Reporter,
) -> Result<()> {
    let deadline = Deadline::of(service_dir, request);
    announce_if_slow(reporter, deadline.step(service_dir), || {
        wait_for_restart(service_dir, name, &deadline, reporter)
    })
}

fn wait_for_restart(
    service_dir: &ServiceDir,
    name: &str,
    deadline: &Deadline,
    reporter: &dyn Reporter,
) -> Result<()> {
    let seconds = deadline.seconds;
    let look = || -> Result<Option<ComponentStatus>> {
        let status = service_dir.status()?;
        Ok(status.components.into_iter().find(|component| component.name == name))
    };
    let before = look()?;
    control::request(service_dir, &Request::Restart(name.to_owned(), seconds))?;
    let Some(before) = before else { return Ok(()) };
    let (since, mut reported) = (Instant::now(), false);
    while since.elapsed() < Duration::from_secs(u64::from(seconds)) + START_TIMEOUT {
        let now = look()?.filter(|_| service_dir.is_running().is_ok_and(|runs| runs));
        let Some(now) = now else { break };
        let restarted = now.restarts > before.restarts || !before.running;
        if now.killed && !std::mem::replace(&mut reported, true) {
            deadline.report(vec![name.to_owned()], reporter);
        }
        if restarted && now.running {
            return Ok(());
        }
        interrupt::check()?;
        std::thread::sleep(LOOK);
    }
    let service = service_dir.name();
    let failed = format!("the component {name} of {service} did not restart");
    Err(Error::new(Kind::Script, failed)
        .hint(format!("`svp logs {service} {name}` shows its output")))
}
