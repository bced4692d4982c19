//! Replaces a service by its fresh copy, or leaves everything as it was.

use std::path::Path;
use std::time::Duration;

use super::candidate::Candidate;
use super::cutover::{Cutover, MovedVolume, Winner};
use super::quiesce::lock;
use crate::error::Result;
use crate::interrupt;
use crate::progress::Reporter;
use crate::sandbox::Sandbox;
use crate::service::lifecycle::{Stop, stop_if_running};
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::State;
use crate::service::{health, monitor};

/// Completes the copy while the service is stopped.
pub(super) type Complete<'a> = &'a dyn Fn(&mut Candidate<'_>, &[MovedVolume]) -> Result<()>;

/// A service that is replaced by a fresh copy.
pub(super) struct Replacement<'a> {
    /// The store's root.
    pub(super) root: &'a Path,
    /// The service.
    pub(super) service_dir: &'a ServiceDir,
    /// The sandbox of both.
    pub(super) sandbox: &'a Sandbox,
    /// Time limit for the service to become healthy.
    pub(super) limit: Duration,
    /// Receives all events.
    pub(super) reporter: &'a dyn Reporter,
}

impl Replacement<'_> {
    /// Replaces the service by a copy that does not run. `new` is the service's record afterwards; `complete` is called
    /// while the service is stopped. On failure the service is as it was, which `unchanged` says, and runs if it ran.
    pub(super) fn run(
        &self,
        candidate: Candidate<'_>,
        new: Record,
        volumes: Vec<MovedVolume>,
        complete: Complete<'_>,
        unchanged: &str,
    ) -> Result<()> {
        let Replacement { root, service_dir, sandbox, limit, reporter } = *self;
        let _cleaning = interrupt::cleaning();
        let old = service_dir.record()?;
        let runs = matches!(service_dir.status()?.state, State::Running | State::Starting);
        let mut cutover = Cutover { old, new, volumes, winner: Winner::New };
        let mut candidate = Some(candidate);
        let result: Result<()> = (|| {
            stop_if_running(service_dir, &Stop::default(), reporter)?;
            let lock = lock(service_dir, reporter)?;
            interrupt::check()?;
            if let Some(candidate) = &mut candidate {
                complete(candidate, &cutover.volumes)?;
            }
            interrupt::check()?;
            cutover.decide(service_dir, Winner::New)?;
            // From here on the journal determines which service owns the trees.
            candidate.take().map_or(Ok(()), Candidate::leave_to_service)?;
            cutover.apply(service_dir, sandbox)?;
            drop(lock);
            if runs {
                monitor::start(root, service_dir, reporter)?;
                let name = service_dir.name();
                // It does not keep running, as others would.
                health::wait(root, service_dir, limit, reporter).map_err(|error| {
                    error.hint(format!("`svp logs {name}` shows the output of the attempt, too"))
                })?;
            }
            Ok(())
        })();
        let Err(error) = result else { return cutover.finish(service_dir, sandbox) };
        let undone: Result<()> = (|| {
            if candidate.is_none() {
                stop_if_running(service_dir, &Stop::default(), reporter)?;
                let _lock = lock(service_dir, reporter)?;
                cutover.decide(service_dir, Winner::Old)?;
                cutover.apply(service_dir, sandbox)?;
                cutover.finish(service_dir, sandbox)?;
            }
            drop(candidate);
            if runs && service_dir.status()?.state != State::Running {
                monitor::start(root, service_dir, reporter)?;
            }
            Ok(())
        })();
        match undone {
            Ok(()) => Err(error.context(unchanged)),
            Err(second) => {
                Err(error.also_hint(&format!("and the old service could not run again: {second}")))
            }
        }
    }
}
