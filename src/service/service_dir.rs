//! The directory of a service: its record, state, socket and logs.
//!
//! ```text
//! ROOT/services/NAME/service.json   the record (0600: it contains secrets)
//! ROOT/services/NAME/status.json    state, written by its monitor alone
//! ROOT/services/NAME/lock           held by the monitor as long as it lives
//! ROOT/services/NAME/control        the monitor's socket
//! ROOT/services/NAME/logs/          output of the components
//! ROOT/services/NAME/monitor.log    the monitor's own log
//! ```
//!
//! A killed monitor leaves its socket and the status "running": only the lock shows whether it is alive.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::name::check_name;
use super::record::{FORMAT, Record};
use super::status::{State, Status};
use crate::error::{Cause, Error, IoContext, Kind, Result};
use crate::remove_tree;
use crate::store::{REPLACEMENT_JOURNAL, SERVICE_RECORD, Staging, StoreLayout};

const STATUS: &str = "status.json";
/// The status file is padded to a multiple of this size, so that a longer status fits in the space of a shorter one;
/// bytes.
const STATUS_BLOCK: usize = 4096;
/// How often to try to read a status, which may be incomplete while it is overwritten in place.
const STATUS_LOOKS: u32 = 5;

/// The directory of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceDir {
    dir: PathBuf,
    name: String,
}

impl ServiceDir {
    /// The directory of the service `name` in the store at `root`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if the name is invalid.
    pub(crate) fn of(root: &Path, name: &str) -> Result<ServiceDir> {
        check_name(name)?;
        Ok(ServiceDir { dir: StoreLayout::new(root).service(name), name: name.to_owned() })
    }

    /// The directory of an existing service.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if there is no such service.
    pub(crate) fn existing(root: &Path, name: &str) -> Result<ServiceDir> {
        let service_dir = ServiceDir::of(root, name)?;
        if service_dir.record_path().exists() {
            Ok(service_dir)
        } else {
            Err(service_dir.is_no_service())
        }
    }

    fn is_no_service(&self) -> Error {
        Error::usage(format!("there is no service {}", self.name))
            .hint("`svp ps -a` lists the services; `svp run IMAGE` starts one")
    }

    /// Opens a file of the directory for appending.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the service has been removed meanwhile, [`Kind::Storage`].
    pub(super) fn open_to_append(&self, file: &str) -> Result<File> {
        let path = self.dir.join(file);
        match File::options().create(true).append(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.is_no_service()),
            other => other.io("open", &path),
        }
    }

    /// The directories of all services, sorted by name.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn all(root: &Path) -> Result<Vec<ServiceDir>> {
        let dir = StoreLayout::new(root).services();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.io("list", &dir)?,
        };
        let mut service_dirs = Vec::new();
        for entry in entries {
            let name = entry.io("list", &dir)?.file_name().to_string_lossy().into_owned();
            // Others are being created or removed.
            service_dirs.extend(ServiceDir::existing(root, &name).ok());
        }
        service_dirs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(service_dirs)
    }

    /// The records of the other services of the store; damaged ones are skipped.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn other_records(&self) -> Result<Vec<Record>> {
        let other_records =
            ServiceDir::all(self.root())?.into_iter().filter(|other| other.name != self.name);
        Ok(other_records.filter_map(|other| other.record().ok()).collect())
    }

    /// Creates the directory of a new service; fails if the name is taken.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage), [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn create(&self, record: &Record) -> Result<()> {
        let parent = self.dir.parent().unwrap_or(&self.dir);
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true).create(parent).io("create", parent)?;
        // Created elsewhere and renamed, so that no incomplete service is ever visible.
        let staging = Staging::new(&StoreLayout::new(self.root()).tmp())?;
        let new = ServiceDir { dir: staging.path().join("service"), name: self.name.clone() };
        builder.create(new.logs()).io("create", new.logs())?;
        new.write(SERVICE_RECORD, record, true)?;
        if self.dir.exists()
            && self.is_partly_removed()
            && let Some(_lock) = self.lock()?
            && !self.record_path().exists()
        {
            self.remove()?;
        }
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            &new.dir,
            rustix::fs::CWD,
            &self.dir,
            rustix::fs::RenameFlags::NOREPLACE,
        )
        .map_err(|errno| match errno {
            rustix::io::Errno::EXIST => {
                let ways = match self.is_running() {
                    Ok(true) => "it is running; `svp rm --force {}` stops and removes it",
                    _ => "`svp start {}` starts it, `svp rm {}` removes it",
                };
                Error::usage(format!("there is a service {} already", self.name))
                    .hint(format!("{}; --name gives another name", ways.replace("{}", &self.name)))
            }
            other => Error::io("create", &self.dir, other),
        })?;
        File::open(parent).and_then(|dir| dir.sync_all()).io("sync", parent)
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        self.write(SERVICE_RECORD, record, true)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is damaged.
    pub(crate) fn record(&self) -> Result<Record> {
        let damaged = |error: Error| match error.kind() {
            Kind::BadInput => error.hint(format!(
                "`svp rm --force {}` removes the rest of the service; its volumes stay",
                self.name
            )),
            _ => error,
        };
        let record: Record = self.read(SERVICE_RECORD).map_err(damaged)?;
        if record.format == FORMAT {
            return Ok(record);
        }
        Err(Error::bad_input(format!(
            "the record of the service {} has a format that this svp doesn't know",
            self.name
        ))
        .hint("use the version of svp that created it"))
    }

    /// Writes the status of the service; only its monitor does so.
    ///
    /// On ENOSPC (the service may have filled the disk) overwrites the padded status file in place, so that it
    /// never goes stale.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn set_status(&self, status: &Status) -> Result<()> {
        let path = self.dir.join(STATUS);
        let mut text = serde_json::to_vec_pretty(status).expect("plain data");
        text.resize(text.len().next_multiple_of(STATUS_BLOCK), b'\n');
        let Err(error) = self.write_text(STATUS, &text, false) else { return Ok(()) };
        if !error.is(Cause::DiskFull) {
            return Err(error);
        }
        let Ok(mut file) = File::options().write(true).open(&path) else { return Err(error) };
        let length = usize::try_from(file.metadata().io("stat", &path)?.len()).unwrap_or(0);
        text.resize(text.len().max(length), b'\n');
        file.write_all(&text).io("write", &path)
    }

    /// Reads the monitor's last status; retries, because it may see part of an in-place write.
    pub(super) fn last_status(&self) -> Option<Status> {
        (0..STATUS_LOOKS).find_map(|look| {
            if look > 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            match self.read(STATUS) {
                Ok(status) => Some(Some(status)),
                Err(_) if !self.dir.join(STATUS).exists() => Some(None),
                Err(_) => None,
            }
        })?
    }

    /// Returns the state of the service, from its status file and its lock.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn status(&self) -> Result<Status> {
        // Test the lock first: a monitor that ends in between has written its status.
        let alive = self.is_running()?;
        let mut status = match self.last_status() {
            Some(status) => status,
            // Nothing more is known.
            None if alive => Status { state: State::Running, ..Status::new(&[]) },
            None => Status::new(&[]),
        };
        if !alive && status.state.needs_monitor() {
            status.state = match status.monitor {
                Some(_) => State::Dead,
                None => State::Created,
            };
            status.components.iter_mut().for_each(|component| component.running = false);
        }
        Ok(status)
    }

    /// Removes the directory. The service's trees in the layer store must be gone already.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(crate) fn remove(&self) -> Result<()> {
        // Remove the record first: an interrupted removal then leaves no service.
        let _ = fs::remove_file(self.record_path());
        let parent = self.dir.parent().unwrap_or(&self.dir);
        let dir = File::open(parent).io("open", parent)?;
        remove_tree::remove_tree(std::os::fd::AsFd::as_fd(&dir), &self.name).io("remove", &self.dir)
    }

    /// Whether a restore was interrupted during its cutover.
    pub(crate) fn has_cutover_journal(&self) -> bool {
        self.dir.join(REPLACEMENT_JOURNAL).exists()
    }

    /// Whether this is the remainder of an interrupted removal.
    fn is_partly_removed(&self) -> bool {
        !self.record_path().exists() && matches!(self.is_running(), Ok(false))
    }

    /// Whether a directory was left by a killed removal of a service, and no process uses it.
    pub(crate) fn is_abandoned(path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ServiceDir { dir: path.to_owned(), name }.is_partly_removed()
    }

    /// Finishes the interrupted removals of services whose names begin with `prefix`.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub(super) fn sweep(root: &Path, prefix: &str) -> Result<()> {
        let services = StoreLayout::new(root).services();
        let dir = File::open(&services).io("open", &services)?;
        for entry in fs::read_dir(&services).io("list", &services)? {
            let name = entry.io("list", &services)?.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) && ServiceDir::is_abandoned(&services.join(&name)) {
                let path = services.join(&name);
                remove_tree::remove_tree(std::os::fd::AsFd::as_fd(&dir), &name)
                    .io("remove", path)?;
            }
        }
        Ok(())
    }

    /// The root of the store that it belongs to.
    pub(crate) fn root(&self) -> &Path {
        self.dir.parent().and_then(Path::parent).unwrap_or(&self.dir)
    }

    /// The service's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The path of the monitor's own log.
    pub(crate) fn monitor_log(&self) -> PathBuf {
        self.dir.join("monitor.log")
    }

    fn record_path(&self) -> PathBuf {
        StoreLayout::service_record(&self.dir)
    }

    /// Reads a file of the directory.
    pub(super) fn read<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        let path = self.dir.join(file);
        let text = fs::read(&path).io("read", &path)?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::bad_input(format!("the service's {} is damaged", path.display())).source(error)
        })
    }

    /// Writes a file of the directory atomically; `durable` if it must survive a crash of the host.
    pub(super) fn write<T: Serialize>(&self, file: &str, value: &T, durable: bool) -> Result<()> {
        self.write_text(file, &serde_json::to_vec_pretty(value).expect("plain data"), durable)
    }

    fn write_text(&self, file: &str, text: &[u8], durable: bool) -> Result<()> {
        let path = self.dir.join(file);
        let mut new = tempfile::NamedTempFile::new_in(&self.dir).io("write", &path)?;
        new.write_all(text).io("write", &path)?;
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
