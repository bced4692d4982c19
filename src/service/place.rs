//! Where a service's record, state, socket and logs are.
//!
//! ```text
//! ROOT/services/NAME/service.json   the record (0600: it has the secrets)
//! ROOT/services/NAME/status.json    what its monitor knows of it, written by that alone
//! ROOT/services/NAME/lock           held by the monitor as long as it lives
//! ROOT/services/NAME/control        the monitor's socket
//! ROOT/services/NAME/logs/          what the components print
//! ROOT/services/NAME/monitor.log    what the monitor has to say
//! ```
//!
//! A monitor that was killed leaves its socket and a status that says "running"; the lock tells the truth.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{FORMAT, Record, check_name};
use super::status::{Standing, Status};
use crate::error::{Error, IoContext, Result};
use crate::remove;

/// The directory of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
    name: String,
}

impl Place {
    /// The place of the service `name` in the store at `root`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if no service can have that name.
    pub fn of(root: &Path, name: &str) -> Result<Place> {
        check_name(name)?;
        Ok(Place { dir: root.join("services").join(name), name: name.to_owned() })
    }

    /// The place of a service that exists.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if there is none.
    pub fn existing(root: &Path, name: &str) -> Result<Place> {
        let place = Place::of(root, name)?;
        if place.record_path().exists() {
            return Ok(place);
        }
        Err(Error::usage(format!("there is no service {name}"))
            .hint("`svp ps -a` lists the services; `svp run IMAGE` starts one"))
    }

    /// All services' places, by name.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn all(root: &Path) -> Result<Vec<Place>> {
        let dir = root.join("services");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.io("list", &dir)?,
        };
        let mut places = Vec::new();
        for entry in entries {
            let name = entry.io("list", &dir)?.file_name().to_string_lossy().into_owned();
            // Others are being made or removed.
            places.extend(Place::existing(root, &name).ok());
        }
        places.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(places)
    }

    /// Makes the place for a new service; fails if the name is taken.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage), [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn create(&self, record: &Record) -> Result<()> {
        let parent = self.dir.parent().unwrap_or(&self.dir);
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true).create(parent).io("make", parent)?;
        // Made whole beside, so that nobody ever sees a part of it.
        let staging = tempfile::Builder::new()
            .prefix(&format!(".new-{}-", self.name))
            .tempdir_in(parent)
            .io("make a directory in", parent)?;
        let new = Place { dir: staging.path().to_owned(), name: self.name.clone() };
        builder.recursive(false).create(new.logs()).io("make", new.logs())?;
        new.write("service.json", record, true)?;
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            staging.path(),
            rustix::fs::CWD,
            &self.dir,
            rustix::fs::RenameFlags::NOREPLACE,
        )
        .map_err(|errno| match errno {
            rustix::io::Errno::EXIST => {
                Error::usage(format!("there is a service {} already", self.name)).hint(format!(
                    "`svp start {0}` starts it, `svp rm {0}` removes it; --name gives another name",
                    self.name
                ))
            }
            other => Error::io("make", &self.dir, other),
        })?;
        // What was renamed away needs no cleaning.
        let _ = staging.keep();
        File::open(parent).and_then(|dir| dir.sync_all()).io("sync", parent)
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn save(&self, record: &Record) -> Result<()> {
        self.write("service.json", record, true)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is damaged.
    pub fn record(&self) -> Result<Record> {
        let record: Record = self.read("service.json")?;
        if record.format == FORMAT {
            return Ok(record);
        }
        Err(Error::bad_input(format!(
            "the service {} is of a format that this svp doesn't know",
            self.name
        ))
        .hint("use the svp that made it"))
    }

    /// Says how the service is; its monitor alone does.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn set_status(&self, status: &Status) -> Result<()> {
        self.write("status.json", status, false)
    }

    /// How the service is, by what its monitor last said and by whether it lives.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn status(&self) -> Result<Status> {
        // In this order: a monitor that ends meanwhile has said so.
        let alive = self.runs()?;
        let mut status = match self.read("status.json") {
            Ok(status) => status,
            Err(_) => Status::new(&[]),
        };
        if !alive && status.standing.needs_monitor() {
            status.standing = match status.monitor {
                Some(_) => Standing::Dead,
                None => Standing::Created,
            };
            status.components.iter_mut().for_each(|component| component.running = false);
        }
        Ok(status)
    }

    /// Takes the monitor's lock; `None` if another monitor lives.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn hold(&self) -> Result<Option<File>> {
        let path = self.dir.join("lock");
        let lock =
            File::options().create(true).append(true).mode(0o600).open(&path).io("open", &path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }

    /// Waits until no monitor lives.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn wait(&self) -> Result<()> {
        let path = self.dir.join("lock");
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.io("open", &path)?.lock_shared().io("lock", &path),
        }
    }

    /// Whether its monitor lives.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn runs(&self) -> Result<bool> {
        let path = self.dir.join("lock");
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.io("open", &path)?,
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }

    /// Removes the place. Its trees must be gone already.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn remove(&self) -> Result<()> {
        // The record goes first: what is left halfway is no service any more.
        let _ = fs::remove_file(self.record_path());
        let parent = self.dir.parent().unwrap_or(&self.dir);
        let dir = File::open(parent).io("open", parent)?;
        remove::remove_tree(std::os::fd::AsFd::as_fd(&dir), &self.name).io("remove", &self.dir)
    }

    /// Removes the places whose names begin with `prefix` and that were being made or removed by a command
    /// that is gone: nobody else may be at it.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(super) fn sweep(root: &Path, prefix: &str) -> Result<()> {
        let services = root.join("services");
        let dir = File::open(&services).io("open", &services)?;
        for entry in fs::read_dir(&services).io("list", &services)? {
            let name = entry.io("list", &services)?.file_name().to_string_lossy().into_owned();
            let unmade = name.strip_prefix(".new-").is_some_and(|name| name.starts_with(prefix));
            let unremoved = || !services.join(&name).join("service.json").exists();
            if unmade || (name.starts_with(prefix) && unremoved()) {
                let path = services.join(&name);
                remove::remove_tree(std::os::fd::AsFd::as_fd(&dir), &name).io("remove", path)?;
            }
        }
        Ok(())
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the logs.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Where the monitor says what it has to say.
    pub fn monitor_log(&self) -> PathBuf {
        self.dir.join("monitor.log")
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join("service.json")
    }

    /// Reads a file of the place.
    pub(super) fn read<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        let path = self.dir.join(file);
        let text = fs::read(&path).io("read", &path)?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::bad_input(format!("the service's {} is damaged", path.display())).source(error)
        })
    }

    /// Writes a file of the place, all or nothing; `durable` if it must outlive a crash of the host.
    pub(super) fn write<T: Serialize>(&self, file: &str, value: &T, durable: bool) -> Result<()> {
        let path = self.dir.join(file);
        let text = serde_json::to_vec_pretty(value).expect("plain data");
        let mut new = tempfile::NamedTempFile::new_in(&self.dir).io("write", &path)?;
        new.write_all(&text).io("write", &path)?;
        if durable {
            new.as_file().sync_all().io("sync", &path)?;
        }
        new.persist(&path).map_err(|error| Error::io("write", &path, error.error))?;
        if durable {
            File::open(&self.dir).and_then(|dir| dir.sync_all()).io("sync", &self.dir)?;
        }
        Ok(())
    }
}
