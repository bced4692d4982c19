//! Staging: directories for what isn't finished, held by a lock that dies with its owner.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};
use crate::interrupt;

/// A private directory (0700) that is removed when dropped, or swept by the next start of svp if the owner
/// was killed. The owner is alive as long as it holds the directory's `flock`.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    // Held for the lock alone.
    _dir: File,
}

impl Staging {
    pub(super) fn new(tmp: &Path) -> Result<Self> {
        let (name, dir) = Staging::lock_new(tmp)?;
        let path = tmp.join(name);
        interrupt::watch_temporary(&path, |path| {
            let _ = fs::remove_dir_all(path);
        });
        Ok(Staging { path, _dir: dir })
    }

    /// Makes and locks a directory with a fresh name in `tmp`, for an owner that removes it in a way of
    /// its own; gives its name and the lock.
    pub(crate) fn lock_new(tmp: &Path) -> Result<(String, File)> {
        loop {
            let name: [u8; 12] = rand::random();
            let name: String = name.iter().map(|b| format!("{b:02x}")).collect();
            let path = tmp.join(&name);
            fs::DirBuilder::new().mode(0o700).create(&path).io("make", &path)?;
            // Until it is locked, a sweeper may take it for an orphan; then another is made.
            if let Some(dir) = lock(&path).io("lock", &path)? {
                return Ok((name, dir));
            }
        }
    }

    /// Locks a directory whose owner is gone; `None` if the owner lives, or it is gone itself.
    pub(crate) fn lock_dead(path: &Path) -> io::Result<Option<File>> {
        lock(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _cleaning = interrupt::cleaning();
        // What can't be removed here, the next sweep tries again.
        let _ = fs::remove_dir_all(&self.path);
        interrupt::forget_temporary(&self.path);
    }
}

/// Removes every directory in `tmp` whose owner is gone. What can't be removed stays.
pub(super) fn sweep(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if let Ok(Some(_held)) = lock(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Opens and locks `path` without waiting; `None` if another holds it or it is gone from there.
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
    fn a_sweep_spares_the_living_and_takes_the_dead() {
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
    fn sweepers_and_makers_at_once_lose_nothing() {
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
