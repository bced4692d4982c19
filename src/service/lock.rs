//! The lock of a service's directory, held by its monitor, or by a command that keeps monitors out.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use log::trace;

use super::process::Process;
use super::service_dir::ServiceDir;
use crate::error::{Error, IoContext, Result};

const LOCK: &str = "lock";
/// Attempts before the lock counts as taken: its holder may be about to exit.
const LOCK_ATTEMPTS: u32 = 10;
/// How long to wait for holders of the shared lock, which only test it.
const SHARED_LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for the processes of a killed container.
const CONTAINER_EXIT_TIMEOUT: Duration = Duration::from_secs(30);

impl ServiceDir {
    /// Takes the monitor's lock; `None` if another monitor lives.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn lock(&self) -> Result<Option<File>> {
        let path = self.dir().join(LOCK);
        let mut lock = self.open_to_append(LOCK)?;
        let since = Instant::now();
        let mut taken = 0;
        while taken < LOCK_ATTEMPTS && since.elapsed() < SHARED_LOCK_TIMEOUT {
            if try_to(lock.try_lock(), &path)? {
                if is_same_file(&lock, &path) {
                    lock.set_len(0).io("write", &path)?;
                    trace!("{}: lock taken after {:.1?}", self.name(), since.elapsed());
                    return Ok(Some(lock));
                }
                // The service was removed meanwhile, and perhaps created again.
                lock = self.open_to_append(LOCK)?;
                continue;
            }
            // A test for a live monitor takes the shared lock briefly: wait for it.
            if try_to(lock.try_lock_shared(), &path)? {
                lock.unlock().io("unlock", &path)?;
            } else {
                taken += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(None)
    }

    /// Waits until the service's last container is gone. After its monitor was killed, the lock is
    /// free at once, while the container's processes need their time to die: two containers must never have
    /// the same files. The lock must be held.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if they are still there after a while.
    pub(crate) fn wait_for_container(&self) -> Result<()> {
        match self.last_status().and_then(|status| status.container) {
            Some(init) if !init.wait(CONTAINER_EXIT_TIMEOUT) => {
                Err(container_still_exists(self.name(), &init))
            }
            _ => Ok(()),
        }
    }

    /// The process of the monitor that last ran the service.
    pub(crate) fn monitor(&self) -> Option<u32> {
        self.last_status()?.monitor
    }

    /// Waits until the monitor `of` has exited, even if the service restarts meanwhile; returns the exit code that it left
    /// in its lock, which the caller has open: the status of a service that is removed at its end goes
    /// with it.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn wait_for_monitor(&self, of: Option<u32>) -> Result<Option<i32>> {
        let path = self.dir().join(LOCK);
        let mut lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.io("open", &path)?,
        };
        let since = Instant::now();
        loop {
            if try_to(lock.try_lock_shared(), &path)? {
                break;
            }
            if self.monitor().is_some_and(|now| of.is_some_and(|of| of != now)) {
                return Ok(None);
            }
            let patient = since.elapsed() > Duration::from_secs(10);
            std::thread::sleep(Duration::from_millis(if patient { 200 } else { 10 }));
        }
        let mut code = String::new();
        // Parse the part that could be read.
        let _ = lock.read_to_string(&mut code);
        Ok(code.trim().parse().ok())
    }

    /// Whether its monitor lives.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn is_running(&self) -> Result<bool> {
        let path = self.dir().join(LOCK);
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.io("open", &path)?,
        };
        Ok(!try_to(lock.try_lock_shared(), &path)?)
    }
}

/// Whether a lock was got.
fn try_to(lock: Result<(), TryLockError>, path: &Path) -> Result<bool> {
    match lock {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}

/// Whether an open file is the one that is found at `path`.
fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// The error of a container that was killed and does not go.
pub(super) fn container_still_exists(name: &str, init: &Process) -> Error {
    Error::sandbox(format!(
        "processes of the last container of {name} were killed and are still there (its process 1 is {})",
        init.number
    ))
    .hint("one may wait for a disk, or be frozen: `ps -ef` tells; it can be started when they are gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreLayout;

    #[test]
    fn those_who_only_look_are_waited_for_and_a_monitor_is_not() {
        let root = tempfile::tempdir().unwrap();
        let dir = StoreLayout::new(root.path()).service("a");
        fs::create_dir_all(&dir).unwrap();
        let service_dir = ServiceDir::of(root.path(), "a").unwrap();
        let looks = File::create(dir.join(LOCK)).unwrap();
        looks.lock_shared().unwrap();
        let (moved, path) = (dir.join("old"), dir.join(LOCK));
        let looker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            // A command that waits for the old monitor must not mistake the new one for it.
            fs::rename(&path, moved).unwrap();
            File::create(&path).unwrap();
            drop(looks);
        });
        let lock = service_dir.lock().unwrap().expect("it was only looked at");
        looker.join().unwrap();
        assert!(is_same_file(&lock, &dir.join(LOCK)) && service_dir.is_running().unwrap());
        let since = Instant::now();
        assert!(service_dir.lock().unwrap().is_none());
        assert!(since.elapsed() < SHARED_LOCK_TIMEOUT);
        drop(lock);
        assert!(!service_dir.is_running().unwrap() && service_dir.lock().unwrap().is_some());
    }
}
