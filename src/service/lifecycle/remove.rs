//! Removes a service.

use std::path::Path;

use super::stop::{Stop, refuse_during_copy, stop};
use crate::error::{Error, Kind, Result};
use crate::progress::{Reporter, Step, Warning, announce_if_slow};
use crate::sandbox::Sandbox;
use crate::service::backup::cutover;
use crate::service::links;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::volume::list;
use crate::store::StoreLayout;

/// How to remove a service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Remove {
    /// Stop it first, and remove it even if its record is damaged.
    pub force: bool,
    /// Remove its volumes too, except those that other services use.
    pub volumes: bool,
}

/// The result of a removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The services that are linked to it, and can't start without it.
    pub linked: Vec<String>,
    /// Its volumes.
    pub volumes: Volumes,
}

/// What became of the volumes of a removed service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volumes {
    /// Removed with their data.
    pub removed: Vec<String>,
    /// Kept, as requested.
    pub kept: Vec<String>,
    /// Kept because another service uses them too.
    pub shared: Vec<String>,
}

/// Removes a service: its files, logs and record, and on request its volumes.
///
/// # Errors
/// [`Kind::Usage`] if it is running, or a backup of it is being created; [`Kind::BadInput`] if its record is damaged
/// and `force` was not given; [`Kind::Storage`], [`Kind::Sandbox`].
pub(crate) fn remove(
    root: &Path,
    service_dir: &ServiceDir,
    request: &Remove,
    reporter: &dyn Reporter,
) -> Result<Removed> {
    let name = service_dir.name();
    refuse_during_copy(service_dir)?;
    if request.force {
        stop(service_dir, &Stop::default(), reporter)?;
    }
    let Some(_locked) = service_dir.lock()? else {
        return Err(Error::usage(format!("the service {name} is running"))
            .hint(format!("use `svp stop {name}` first, or `svp rm --force {name}`")));
    };
    service_dir.wait_for_container(reporter)?;
    let sandbox = Sandbox::create(&StoreLayout::new(root).trees())?;
    if request.force
        && let Err(error) = service_dir.record()
        && error.kind() == Kind::BadInput
    {
        reporter.warning(Warning::ServiceDiscarded { reason: error.to_string() });
        service_dir.remove()?;
        return Ok(Removed::default());
    }
    cutover::recover_and_collect(root, service_dir, &sandbox)?;
    let record = service_dir.record()?;
    let linked = links::dependents(root, name)?;
    let step = Step::RemoveService { service: name.to_owned() };
    let volumes = announce_if_slow(reporter, step, || {
        delete(service_dir, &record, &sandbox, &|_| request.volumes)
    })?;
    Ok(Removed { linked, volumes })
}

/// Returns the volumes of a new service that don't exist yet.
///
/// # Errors
/// [`Kind::Storage`].
pub(crate) fn missing_volumes(root: &Path, record: &Record) -> Result<Vec<String>> {
    let found = list::volumes(&StoreLayout::new(root).trees())?;
    let missing = |name: &&str| found.iter().all(|tree| tree.key() != *name);
    Ok(record.volume_names().filter(missing).map(str::to_owned).collect())
}

/// Removes a service that could not be started, and the volumes `created` for it, if no component of it ever ran.
/// `svp rm` and `svp volume rm` remove anything left.
pub(crate) fn discard(root: &Path, service_dir: &ServiceDir, record: &Record, created: &[String]) {
    if !service_dir.status().is_ok_and(|status| !status.ran()) {
        return;
    }
    if let Ok(sandbox) = Sandbox::create(&StoreLayout::new(root).trees()) {
        let is_new = |name: &str| created.iter().any(|created| created == name);
        // The caller reports why it could not be started.
        let _ = delete(service_dir, record, &sandbox, &is_new);
    }
}

/// Deletes all data of a stopped service, and those of its volumes that `and_volume` selects and no other service uses.
/// Returns what became of its volumes.
///
/// # Errors
/// [`Kind::Storage`], [`Kind::Sandbox`].
pub(in crate::service) fn delete(
    service_dir: &ServiceDir,
    record: &Record,
    sandbox: &Sandbox,
    and_volume: &dyn Fn(&str) -> bool,
) -> Result<Volumes> {
    sandbox.remove_service(&record.id)?;
    let mut done = Volumes::default();
    let others = service_dir.other_records()?;
    for name in record.volume_names().filter(|name| sandbox.has_volume(name)) {
        let name = name.to_owned();
        if others.iter().any(|other| other.volume_names().any(|theirs| theirs == name)) {
            done.shared.push(name);
        } else if and_volume(&name) {
            sandbox.remove_volume(&name)?;
            done.removed.push(name);
        } else {
            done.kept.push(name);
        }
    }
    service_dir.remove()?;
    Ok(done)
}
