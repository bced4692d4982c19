//! Finds other services that use a service's volumes, and keeps the service itself from starting.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::progress::Reporter;
use crate::service::mount::MountSource;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::State;

/// Returns another running service that uses a volume which this one writes, and the volume.
pub(super) fn shared(root: &Path, record: &Record) -> Result<Option<(String, String)>> {
    for other in ServiceDir::all(root)?.iter().filter(|other| other.name() != record.name) {
        let Ok(theirs) = other.record() else { continue };
        let shared = record.own_volumes().find(|(name, _)| {
            let volume = MountSource::Volume((*name).clone());
            theirs.mounts.iter().any(|mount| mount.source == volume)
        });
        if let Some((volume, _)) = shared
            && !matches!(other.status()?.state, State::Created | State::Exited | State::Dead)
        {
            return Ok(Some((other.name().to_owned(), volume.clone())));
        }
    }
    Ok(None)
}

/// Refuses to replace volumes that another running service uses.
pub(super) fn refuse_shared(root: &Path, record: &Record, then: &str) -> Result<()> {
    let Some((name, volume)) = shared(root, record)? else { return Ok(()) };
    Err(Error::usage(format!("{name} is running with the same volume, {volume}"))
        .hint(format!("stop it first: `svp stop {name}`; {then}")))
}

/// Locks a service, so that no other command can start it.
pub(super) fn lock(service_dir: &ServiceDir, reporter: &dyn Reporter) -> Result<File> {
    let lock = service_dir.lock()?.ok_or_else(|| {
        Error::usage(format!("{} was started in the meantime", service_dir.name()))
    })?;
    service_dir.wait_for_container(reporter)?;
    Ok(lock)
}
