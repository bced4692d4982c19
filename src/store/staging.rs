//! Staging: directories for unfinished files, protected by a lock that ends with the owner.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};
use crate::interrupt;
use crate::random_name::random_name;

/// A private directory (0700) that is removed when dropped, or swept by the next svp if its owner was killed.
/// The owner holds the directory's `flock` while it lives.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    // Held only for its lock.
    _dir: File,
}

impl Staging {
    /// Creates a staging directory in `tmp`, the store's directory for them.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn new(tmp: &Path) -> Result<Self> {
        let (name, dir) = Staging::lock_new(tmp)?;
        let path = tmp.join(name);
        interrupt::watch_temporary(&path, |path| {
            // Best effort: a later command removes the rest.
            let _ = fs::remove_dir_all(path);
        });
        Ok(Staging { path, _dir: dir })
    }

    /// Creates and locks a directory with an unused name in `tmp`; returns its name and the lock. The caller
    /// removes it.
    pub(crate) fn lock_new(tmp: &Path) -> Result<(String, File)> {
        loop {
            let name = random_name();
            let path = tmp.join(&name);
            fs::DirBuilder::new().mode(0o700).create(&path).io("create", &path)?;
            // Before the lock is taken, a sweeper may remove the directory as an orphan; then create another.
            if let Some(dir) = lock(&path).io("lock", &path)? {
                return Ok((name, dir));
            }
        }
    }

    /// Locks a directory whose owner is dead; `None` if the owner is alive or the directory is gone.
    pub(crate) fn lock_dead(path: &Path) -> io::Result<Option<File>> {
        lock(path)
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _cleaning = interrupt::cleaning();
        // On failure, the next sweep tries again.
        let _ = fs::remove_dir_all(&self.path);
        interrupt::forget_temporary(&self.path);
    }
}

/// Removes every directory in `tmp` whose owner is dead; ignores failures.
pub(super) fn sweep(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if let Ok(Some(_held)) = lock(&path) {
            // Best effort: a later command removes the rest.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Opens and locks `path` without blocking; `None` if another process holds the lock or the directory is gone.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let dir = match File::open(path) {
        Err(error) if gone(&error) => return Ok(None),
        other => other?,
    };
    match dir.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    match fs::symlink_metadata(path) {
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
        Ok(there) => {
            let held = dir.metadata()?;
            let same = (there.dev(), there.ino()) == (held.dev(), held.ino());
            Ok(same.then_some(dir))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_removes_only_directories_of_dead_owners() {
        let tmp = tempfile::tempdir().unwrap();
        let alive = Staging::new(tmp.path()).unwrap();
        fs::write(alive.path().join("x"), "x").unwrap();
        let dead = tmp.path().join("dead");
        fs::create_dir_all(dead.join("sub")).unwrap();
        sweep(tmp.path());
        assert!(alive.path().join("x").exists());
        assert!(!dead.exists());
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
    }

    #[test]
    fn concurrent_sweeps_and_creations_lose_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..200).for_each(|_| sweep(tmp.path())));
                scope.spawn(|| {
                    for _ in 0..200 {
                        let staging = Staging::new(tmp.path()).unwrap();
                        fs::write(staging.path().join("x"), "x").unwrap();
                        assert!(staging.path().join("x").exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
