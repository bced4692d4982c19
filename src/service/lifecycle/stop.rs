//! Stops a service, and waits for its end.

use std::path::Path;

use crate::error::{Cause, Error, Result};
use crate::pack::query::StopSignal;
use crate::progress::{Reporter, ServiceNote, Step, announce_if_slow};
use crate::service::backup::cutover;
use crate::service::control::{self, Request};
use crate::service::record::{Record, STOP_SECONDS};
use crate::service::service_dir::ServiceDir;
use crate::service::status::State;

/// How to stop a service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop {
    /// Seconds between the stop signal and SIGKILL, instead of the service's own.
    pub seconds: Option<u32>,
}

/// The signal that a service gets, and the time that it has after it.
pub(super) struct Deadline {
    signal: String,
    pub(super) seconds: u32,
}

impl Deadline {
    pub(super) fn of(service_dir: &ServiceDir, request: &Stop) -> Deadline {
        // A service whose record is damaged can be stopped, too.
        let record = service_dir.record().ok();
        let own = record.as_ref().map_or(STOP_SECONDS, Record::stop_seconds);
        let signal = record.map_or(StopSignal::default(), |record| StopSignal(record.stop_signal));
        Deadline { signal: signal.to_string(), seconds: request.seconds.unwrap_or(own) }
    }

    /// The step to announce while a service takes its time.
    pub(super) fn step(&self, service_dir: &ServiceDir) -> Step {
        let service = service_dir.name().to_owned();
        Step::WaitForStop { service, signal: self.signal.clone(), seconds: self.seconds }
    }

    /// Reports that components had to be killed.
    pub(super) fn report(&self, components: Vec<String>, reporter: &dyn Reporter) {
        let (signal, seconds) = (self.signal.clone(), self.seconds);
        reporter.note(ServiceNote::StopTimedOut { components, signal, seconds }.into());
    }
}

/// Returns the services that `svp stop --all` stops: those running, and those that a backup has stopped temporarily.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn running(root: &Path) -> Result<Vec<ServiceDir>> {
    let mut service_dirs = ServiceDir::all(root)?;
    let runs =
        |service_dir: &ServiceDir| service_dir.status().is_ok_and(|s| s.state == State::Running);
    service_dirs.retain(|service_dir| {
        runs(service_dir) || cutover::is_being_copied(service_dir).unwrap_or(false)
    });
    Ok(service_dirs)
}

/// Stops a service and waits for its end. Succeeds if it is not running.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) while a backup of it is created or restored; its monitor's errors;
/// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the monitor does not answer.
pub(crate) fn stop(
    service_dir: &ServiceDir,
    request: &Stop,
    reporter: &dyn Reporter,
) -> Result<()> {
    refuse_during_copy(service_dir)?;
    if stop_if_running(service_dir, request, reporter)? {
        return Ok(());
    }
    // A backup or a restore may have stopped it temporarily.
    if cutover::is_locked(service_dir)? {
        return Err(busy(service_dir));
    }
    reporter.step(Step::NotRunning { service: service_dir.name().to_owned() });
    Ok(())
}

/// Stops a service if it is running, even during a backup; returns whether it was running.
pub(in crate::service) fn stop_if_running(
    service_dir: &ServiceDir,
    request: &Stop,
    reporter: &dyn Reporter,
) -> Result<bool> {
    let monitor = service_dir.monitor();
    let deadline = Deadline::of(service_dir, request);
    let stopped = announce_if_slow(reporter, deadline.step(service_dir), || {
        control::request(service_dir, &Request::Stop(deadline.seconds))
            .and_then(|_| service_dir.wait_for_monitor(monitor))
    });
    match stopped {
        Ok(end) => {
            let killed = end.map(|end| end.killed).unwrap_or_default();
            if !killed.is_empty() {
                deadline.report(killed, reporter);
            }
            Ok(true)
        }
        Err(error) if error.is(Cause::ServiceNotRunning) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses to change a service that is stopped while its files are copied: the backup starts it again.
pub(super) fn refuse_during_copy(service_dir: &ServiceDir) -> Result<()> {
    if cutover::is_being_copied(service_dir)? { Err(busy(service_dir)) } else { Ok(()) }
}

fn busy(service_dir: &ServiceDir) -> Error {
    let name = service_dir.name();
    Error::usage(format!("a backup of {name} is being created or restored, or it is upgraded"))
        .hint("wait until it is done, or interrupt it, which leaves the service as it was")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::service::control::Listener;
    use crate::store::StoreLayout;

    /// The directory of a service without a record, which is enough for its socket.
    fn service_dir(root: &Path) -> ServiceDir {
        std::fs::create_dir_all(StoreLayout::new(root).service("a")).unwrap();
        ServiceDir::of(root, "a").unwrap()
    }

    #[test]
    fn a_service_without_a_monitor_is_not_running() {
        let root = tempfile::tempdir().unwrap();
        let service_dir = service_dir(root.path());
        assert!(!stop_if_running(&service_dir, &Stop::default(), &Silent).unwrap());
        stop(&service_dir, &Stop::default(), &Silent).unwrap();
    }

    #[test]
    fn a_refused_stop_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let service_dir = service_dir(root.path());
        let listener = Listener::bind(&service_dir).unwrap();
        let monitor = std::thread::spawn(move || {
            loop {
                if let Some((client, _)) = listener.next() {
                    return client.answer(Err(Error::usage("it can't be stopped now")), &[]);
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let error = stop(&service_dir, &Stop::default(), &Silent).unwrap_err();
        monitor.join().unwrap();
        assert_eq!(error.to_string(), "it can't be stopped now");
    }
}
