//! Checks that no other service uses what a service has written, and keeps that service from starting.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::service::mount::MountSource;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::State;

/// Another service that runs with a volume that this one writes, and the volume.
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

/// Keeps others from starting a service.
pub(super) fn lock(service_dir: &ServiceDir) -> Result<File> {
    let lock = service_dir.lock()?.ok_or_else(|| {
        Error::usage(format!("somebody has started {} meanwhile", service_dir.name()))
    })?;
    service_dir.wait_for_container()?;
    Ok(lock)
}
