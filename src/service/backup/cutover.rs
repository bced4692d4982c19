//! Replaces a service by its restored copy, so that a crash at any time leaves one of the two and not a mixture.
//!
//! ```text
//! ROOT/services/NAME/swap.json      the journal: which of the two is kept, as long as both exist
//! ROOT/services/NAME/restoring      locked by the command that restores
//! ```
//!
//! The record names the service's directory in the layer store, so that one rename of the record switches it. Volumes
//! keep their names and are renamed one after the other: the journal records the direction, and [`recover`] completes
//! the renames, however often it is interrupted. Starting the service recovers first. The losing side is removed last.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result};
use crate::sandbox::Sandbox;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::store::REPLACEMENT_JOURNAL;

const LOCK: &str = "restoring";
/// The lock of a command that copies the service's files.
const COPYING: &str = "copying";

/// The journal of a cutover: two versions of a service, one of which is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cutover {
    /// The service before the restore.
    pub(super) old: Record,
    /// The restored service.
    pub(super) new: Record,
    /// The volumes that differ.
    pub(super) volumes: Vec<MovedVolume>,
    /// The version that is kept.
    pub(super) winner: Winner,
}

/// A volume that both versions have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MovedVolume {
    /// Its name.
    pub(super) name: String,
    /// The name of the new version's volume before it is renamed to `name`.
    pub(super) new: String,
    /// The name of the old version's volume after it is renamed from `name`.
    pub(super) old: String,
    /// Whether only the new version has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) fresh: bool,
}

/// The version that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Winner {
    Old,
    New,
}

/// The lock for restoring a service, held by one command at a time.
#[derive(Debug)]
pub(super) struct RestoreLock(#[allow(dead_code)] File);

/// The lock that marks a service as stopped while its files are copied; it is started again afterwards.
#[derive(Debug)]
pub(super) struct CopyLock(#[allow(dead_code)] File);

impl CopyLock {
    /// Marks the service until dropped. Meanwhile no other command may stop it, since it is started again anyway.
    pub(super) fn begin(service_dir: &ServiceDir, _lock: &RestoreLock) -> Result<CopyLock> {
        let path = service_dir.dir().join(COPYING);
        let lock = File::options().create(true).append(true).open(&path).io("open", &path)?;
        // Others hold it only briefly, to test it.
        lock.lock().io("lock", &path)?;
        Ok(CopyLock(lock))
    }
}

/// Whether a service is stopped while its files are copied, and will be started again.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn is_being_copied(service_dir: &ServiceDir) -> Result<bool> {
    let path = service_dir.dir().join(COPYING);
    let lock = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.io("open", &path)?,
    };
    Ok(matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether a command is restoring a backup of a service, or copying its files.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn is_locked(service_dir: &ServiceDir) -> Result<bool> {
    Ok(service_dir.dir().join(LOCK).exists() && RestoreLock::try_take(service_dir)?.is_none())
}

impl RestoreLock {
    /// Takes the lock; fails if another command holds it.
    pub(super) fn take(service_dir: &ServiceDir) -> Result<RestoreLock> {
        RestoreLock::try_take(service_dir)?.ok_or_else(|| {
            Error::usage(format!(
                "a backup of {} is being restored or verified, or it is upgraded",
                service_dir.name()
            ))
            .hint("wait until that is done")
        })
    }

    fn try_take(service_dir: &ServiceDir) -> Result<Option<RestoreLock>> {
        let path = service_dir.dir().join(LOCK);
        let lock = File::options().create(true).append(true).open(&path).io("open", &path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(RestoreLock(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }
}

impl Cutover {
    /// Reads a service's journal, if there is one.
    fn of(service_dir: &ServiceDir) -> Result<Option<Cutover>> {
        if !service_dir.has_cutover_journal() {
            return Ok(None);
        }
        service_dir.read(REPLACEMENT_JOURNAL).map(Some)
    }

    /// Records durably which version is kept: from now on [`recover`] carries that out.
    pub(super) fn decide(&mut self, service_dir: &ServiceDir, winner: Winner) -> Result<()> {
        self.winner = winner;
        service_dir.write(REPLACEMENT_JOURNAL, self, true)
    }

    /// Renames the volumes and replaces the record as decided. The service must not run.
    pub(super) fn apply(&self, service_dir: &ServiceDir, sandbox: &Sandbox) -> Result<()> {
        for MovedVolume { name, new, old, fresh } in &self.volumes {
            if *fresh && self.winner == Winner::Old && !sandbox.has_volume(new) {
                sandbox.rename_volume(name, new)?;
                continue;
            }
            let (from, aside) = match self.winner {
                Winner::New => (new, old),
                Winner::Old => (old, new),
            };
            // If it is missing, it was renamed already.
            if sandbox.has_volume(from) {
                if sandbox.has_volume(name) && !sandbox.has_volume(aside) {
                    sandbox.rename_volume(name, aside)?;
                }
                sandbox.rename_volume(from, name)?;
            }
        }
        let winner = match self.winner {
            Winner::New => &self.new,
            Winner::Old => &self.old,
        };
        // A record that has the winner's ID already may have changed since: keep it.
        if service_dir.record()?.id != winner.id {
            service_dir.save(winner)?;
        }
        Ok(())
    }

    /// Removes the losing version, then the journal.
    pub(super) fn finish(&self, service_dir: &ServiceDir, sandbox: &Sandbox) -> Result<()> {
        let loser = match self.winner {
            Winner::New => &self.old,
            Winner::Old => &self.new,
        };
        sandbox.remove_service(&loser.id)?;
        for MovedVolume { new, old, .. } in &self.volumes {
            let aside = if self.winner == Winner::New { old } else { new };
            sandbox.remove_volume(aside)?;
        }
        let path = service_dir.dir().join(REPLACEMENT_JOURNAL);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the volumes in a service's journal, under all their names; none without a running or interrupted restore.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if the journal is damaged,
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn volumes(service_dir: &ServiceDir) -> Result<Vec<String>> {
    let moved = Cutover::of(service_dir)?.map(|cutover| cutover.volumes).unwrap_or_default();
    Ok(moved.into_iter().flat_map(|moved| [moved.name, moved.new, moved.old]).collect())
}

/// Completes an interrupted cutover. The service must not run, and its lock must be held.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage), [`Kind::Sandbox`](crate::error::Kind::Sandbox).
pub(crate) fn recover(service_dir: &ServiceDir, sandbox: &Sandbox) -> Result<()> {
    let Some(cutover) = Cutover::of(service_dir)? else { return Ok(()) };
    cutover.apply(service_dir, sandbox)?;
    // A running restore may still abort.
    match RestoreLock::try_take(service_dir)? {
        Some(_lock) => cutover.finish(service_dir, sandbox),
        None => Ok(()),
    }
}

/// Completes or undoes killed restores, and removes their copies. The service may run: then it has recovered at its
/// start.
pub(super) fn recover_abandoned(
    root: &Path,
    service_dir: &ServiceDir,
    sandbox: &Sandbox,
    lock: &RestoreLock,
) -> Result<()> {
    if let Some(cutover) = Cutover::of(service_dir)? {
        if let Some(_lock) = service_dir.lock()? {
            cutover.apply(service_dir, sandbox)?;
        }
        cutover.finish(service_dir, sandbox)?;
    }
    sweep(root, service_dir, sandbox, lock)
}

/// Completes an interrupted cutover, and removes the copies left by killed restores. The service must not run, and its
/// lock must be held.
///
/// # Errors
/// As [`recover`].
pub(crate) fn recover_and_collect(
    root: &Path,
    service_dir: &ServiceDir,
    sandbox: &Sandbox,
) -> Result<()> {
    recover(service_dir, sandbox)?;
    match RestoreLock::try_take(service_dir)? {
        Some(lock) => sweep(root, service_dir, sandbox, &lock),
        None => Ok(()),
    }
}

/// Returns the services of which killed restores have left copies.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage).
pub(crate) fn abandoned_by_restore(root: &Path) -> Result<Vec<ServiceDir>> {
    let copies = ServiceDir::all(root)?;
    let of = copies.iter().filter_map(|copy| copy.record().ok()?.candidate_for);
    let mut found = Vec::new();
    for name in of.collect::<BTreeSet<String>>() {
        let service_dir = ServiceDir::of(root, &name)?;
        if service_dir.dir().exists() && RestoreLock::try_take(&service_dir)?.is_some() {
            found.push(service_dir);
        }
    }
    Ok(found)
}

/// Removes the leftovers of a service's killed restores; the service may be running.
///
/// # Errors
/// As [`recover`].
pub(crate) fn collect(root: &Path, service_dir: &ServiceDir, sandbox: &Sandbox) -> Result<()> {
    match RestoreLock::try_take(service_dir)? {
        Some(lock) => recover_abandoned(root, service_dir, sandbox, &lock),
        None => Ok(()),
    }
}

/// Removes the copies left by killed restores. No cutover may be pending.
fn sweep(root: &Path, service_dir: &ServiceDir, sandbox: &Sandbox, _: &RestoreLock) -> Result<()> {
    for copy in ServiceDir::all(root)? {
        let Ok(record) = copy.record() else { continue };
        if record.candidate_for.as_deref() != Some(service_dir.name()) {
            continue;
        }
        let Some(_lock) = copy.lock()? else { continue };
        // With the same ID, the copy has replaced the service, and only the copy's record is left.
        if service_dir.record()?.id != record.id {
            remove_trees(&record, sandbox)?;
        }
        copy.remove()?;
    }
    ServiceDir::sweep(root, &candidate_prefix(service_dir.name()))
}

/// The prefix of the names of a service's fresh copies.
pub(super) fn candidate_prefix(name: &str) -> String {
    // A service's name has 63 characters at most.
    let short: String = name.chars().take(48).collect();
    format!("{short}.restore-")
}

/// Removes the trees and the volumes of a fresh copy; volumes that it shares stay.
pub(super) fn remove_trees(copy: &Record, sandbox: &Sandbox) -> Result<()> {
    sandbox.remove_service(&copy.id)?;
    copy.own_volumes().try_for_each(|(name, _)| sandbox.remove_volume(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreLayout;

    #[test]
    fn one_command_restores_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(StoreLayout::new(dir.path()).service("a")).unwrap();
        let service_dir = ServiceDir::of(dir.path(), "a").unwrap();
        let held = RestoreLock::take(&service_dir).unwrap();
        assert!(RestoreLock::take(&service_dir).is_err());
        drop(held);
        RestoreLock::take(&service_dir).unwrap();
    }
}
