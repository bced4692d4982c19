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
use crate::progress::{Reporter, Step, announce_if_slow};

const LOCK: &str = "lock";
/// Attempts before the lock counts as taken: its holder may be about to exit.
const LOCK_ATTEMPTS: u32 = 10;
/// How long to wait for holders of the shared lock, which only test it.
const SHARED_LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for the processes of a killed container.
const CONTAINER_EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How a service ended, as its monitor writes it to its lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MonitorEnd {
    /// The exit code of the service.
    pub code: i32,
    /// The components that had to be killed since they did not stop in time.
    pub killed: Vec<String>,
}

impl MonitorEnd {
    /// The exit code, then a line for each killed component.
    pub(super) fn to_text(&self) -> String {
        let killed = self.killed.iter().map(|name| format!("\n{name}"));
        std::iter::once(self.code.to_string()).chain(killed).collect()
    }

    fn parse(text: &str) -> Option<MonitorEnd> {
        let mut lines = text.lines();
        let code = lines.next()?.trim().parse().ok()?;
        Some(MonitorEnd { code, killed: lines.map(str::to_owned).collect() })
    }
}

impl ServiceDir {
    /// Takes the monitor's lock; `None` if another process holds it.
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

    /// Waits until the service's last container is gone. When a monitor is killed, its lock is free at once, but the
    /// container's processes take time to exit, and two containers must never use the same files. The caller must
    /// hold the lock.
    ///
    /// # Errors
    /// [`Kind::Sandbox`](crate::error::Kind::Sandbox) if the processes still exist after a time limit.
    pub(crate) fn wait_for_container(&self, reporter: &dyn Reporter) -> Result<()> {
        let Some(init) = self.last_status().and_then(|status| status.container) else {
            return Ok(());
        };
        let step = Step::WaitForContainer { service: self.name().to_owned() };
        let gone = !init.is_alive()
            || announce_if_slow(reporter, step, || init.wait(CONTAINER_EXIT_TIMEOUT));
        if gone { Ok(()) } else { Err(container_still_exists(self.name(), &init)) }
    }

    /// The PID of the monitor that last ran the service.
    pub(crate) fn monitor(&self) -> Option<u32> {
        self.last_status()?.monitor
    }

    /// Waits until the monitor `of` has exited, even if the service restarts meanwhile. Returns the end that the
    /// monitor wrote to its lock file, which is opened before the wait: a service that is removed when it ends leaves
    /// no status.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn wait_for_monitor(&self, of: Option<u32>) -> Result<Option<MonitorEnd>> {
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
        let mut text = String::new();
        // Parse the part that could be read.
        let _ = lock.read_to_string(&mut text);
        Ok(MonitorEnd::parse(&text))
    }

    /// Whether the service's monitor is alive.
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

/// Whether a lock was acquired.
fn try_to(lock: Result<(), TryLockError>, path: &Path) -> Result<bool> {
    match lock {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}

/// Whether `path` still names an open file.
fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// The error for a killed container whose processes still exist.
pub(super) fn container_still_exists(name: &str, init: &Process) -> Error {
    Error::sandbox(format!(
        "the last container of {name} was killed, but its processes still exist (its init is process {})",
        init.number
    ))
    .hint("a process may be waiting for a disk, or frozen: see `ps -ef`; start the service when all are gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreLayout;

    #[test]
    fn lock_waits_for_a_shared_lock_but_not_for_a_monitor() {
        let root = tempfile::tempdir().unwrap();
        let dir = StoreLayout::new(root.path()).service("a");
        fs::create_dir_all(&dir).unwrap();
        let service_dir = ServiceDir::of(root.path(), "a").unwrap();
        let shared = File::create(dir.join(LOCK)).unwrap();
        shared.lock_shared().unwrap();
        let (moved, path) = (dir.join("old"), dir.join(LOCK));
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            // A command that waits for the old monitor must not mistake the new one for it.
            fs::rename(&path, moved).unwrap();
            File::create(&path).unwrap();
            drop(shared);
        });
        let lock = service_dir.lock().unwrap().expect("no monitor holds the lock");
        holder.join().unwrap();
        assert!(is_same_file(&lock, &dir.join(LOCK)) && service_dir.is_running().unwrap());
        let since = Instant::now();
        assert!(service_dir.lock().unwrap().is_none());
        assert!(since.elapsed() < SHARED_LOCK_TIMEOUT);
        drop(lock);
        assert!(!service_dir.is_running().unwrap() && service_dir.lock().unwrap().is_some());
    }
}
