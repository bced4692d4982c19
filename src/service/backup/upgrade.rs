//! Upgrades a service to another image: copies its volumes, and replaces it by a service of the new image that works on
//! the copies. Only if that is healthy, the old volumes are removed.

use std::path::Path;
use std::time::Duration;

use super::candidate::Candidate;
use super::cutover::{CopyLock, MovedVolume, RestoreLock, recover_abandoned};
use super::quiesce::refuse_shared;
use super::replace::Replacement;
use crate::error::{Context, Error, Result};
use crate::progress::{Reporter, Step, announce_if_slow};
use crate::sandbox::Sandbox;
use crate::service::links;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::State;
use crate::store::Store;

/// The state of a service after a failed upgrade.
const UNCHANGED: &str = "not upgraded, everything is as it was";

/// A service that no other command restores, backs up or upgrades meanwhile.
pub(crate) struct Upgrade<'a> {
    /// The store. It stays open, so that no image of the two is removed.
    store: &'a Store,
    sandbox: &'a Sandbox,
    service_dir: &'a ServiceDir,
    lock: RestoreLock,
}

impl<'a> Upgrade<'a> {
    /// Begins an upgrade; completes or undoes an interrupted one first.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if a backup of it is being restored, or it was run with `--rm`;
    /// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
    pub(crate) fn begin(
        store: &'a Store,
        sandbox: &'a Sandbox,
        service_dir: &'a ServiceDir,
    ) -> Result<Upgrade<'a>> {
        let name = service_dir.name();
        if service_dir.record()?.remove {
            return Err(Error::usage(format!("{name} was run with --rm: a stop would remove it"))
                .hint("stop it, and run the new image"));
        }
        let lock = RestoreLock::take(service_dir)?;
        recover_abandoned(store.root(), service_dir, sandbox, &lock)?;
        Ok(Upgrade { store, sandbox, service_dir, lock })
    }

    /// Replaces the service by one with the record `new`, whose volumes are copies. A stopped service stays stopped; its
    /// copy is started for the check.
    ///
    /// # Errors
    /// [`Kind::Script`](crate::error::Kind::Script) if the new service is not healthy in time, and those of
    /// [`Upgrade::begin`]. The service is unchanged then, and runs if it ran before.
    pub(crate) fn run(self, new: Record, limit: Duration, reporter: &dyn Reporter) -> Result<()> {
        let Upgrade { store, sandbox, service_dir, lock } = self;
        let root: &Path = store.root();
        refuse_shared(root, &service_dir.record()?, "then it gets the upgraded data")?;
        // Do not stop a service that could not start again.
        links::resolve(root, &new)?;
        let runs = matches!(service_dir.status()?.state, State::Running | State::Starting);
        let candidate = Candidate::create(root, sandbox, &new)?;
        let new = Record { id: candidate.record.id.clone(), ..new };
        let volumes = volumes(&candidate, &new, sandbox);
        // A stop before this point succeeds; a later one is refused with the reason.
        let _copying = CopyLock::begin(service_dir, &lock)?;
        let complete = |candidate: &mut Candidate<'_>, volumes: &[MovedVolume]| {
            announce_if_slow(reporter, Step::CopyVolumes, || {
                candidate.copy_volumes(store, volumes)
            })
            .context("can't copy the volumes")?;
            if !runs {
                reporter.step(Step::StartCopy);
                candidate.start(limit, reporter)?;
                candidate.stop()?;
            }
            announce_if_slow(reporter, Step::SyncFiles, || sandbox.sync())
        };
        Replacement { root, service_dir, sandbox, limit, reporter }
            .run(candidate, new, volumes, &complete, UNCHANGED)
    }
}

/// Pairs the volumes of the two versions. One that does not exist yet is created when the new version starts.
fn volumes(candidate: &Candidate<'_>, new: &Record, sandbox: &Sandbox) -> Vec<MovedVolume> {
    let mut volumes = candidate.moved_volumes(new);
    for volume in &mut volumes {
        volume.fresh = !sandbox.has_volume(&volume.name);
    }
    volumes
}
