//! A fresh copy of a service, created from its image, in which a backup is restored.
//!
//! This process supervises the copy, which dies with it. Its network is a private one without published ports, or
//! none: never the host's, where its scripts would reach the old service's ports.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::cutover::{MovedVolume, candidate_prefix, remove_trees};
use crate::error::{Error, Result};
use crate::interrupt::{self, Cleaning};
use crate::oci::Image;
use crate::progress::{Reporter, Silent};
use crate::random_name::random_name;
use crate::sandbox::{
    ArchivedVolume, Network, Sandbox, VolumeRecord, layer_sources, why_no_private_network,
};
use crate::service::mount::MountSource;
use crate::service::prepare::exposed_ports;
use crate::service::record::{Record, Restart};
use crate::service::service_dir::ServiceDir;
use crate::service::supervise::Hooks;
use crate::service::{health, monitor};
use crate::store::Store;

/// How many of the copy's last lines of output are shown on failure.
const LINES: usize = 20;

/// A fresh copy. Dropping it removes it and its data, unless they were
/// [left to the service](Candidate::leave_to_service).
pub(super) struct Candidate<'a> {
    root: PathBuf,
    sandbox: &'a Sandbox,
    pub(super) service_dir: ServiceDir,
    pub(super) record: Record,
    /// The suffix that distinguishes its names from those of other copies.
    mark: String,
    running: Option<Running>,
    given_away: bool,
    _cleaning: Cleaning,
}

struct Running {
    stop: File,
    thread: JoinHandle<Result<i32>>,
}

impl Record {
    /// The volumes that it writes, and their mount points.
    pub(super) fn own_volumes(&self) -> impl Iterator<Item = (&String, &String)> {
        self.mounts.iter().filter(|mount| !mount.read_only).filter_map(|mount| {
            match &mount.source {
                MountSource::Volume(name) => Some((name, &mount.at)),
                MountSource::Host(_) => None,
            }
        })
    }

    /// The same volumes, to export or import their content.
    pub(super) fn saved_volumes(&self) -> Vec<ArchivedVolume> {
        let saved =
            |(name, at): (&String, &String)| ArchivedVolume { name: name.clone(), at: at.clone() };
        self.own_volumes().map(saved).collect()
    }

    /// Describes a fresh copy of this service.
    fn candidate(&self, image: &Image, mark: &str) -> Result<Record> {
        let mut candidate = self.clone();
        candidate.name = format!("{}{mark}", candidate_prefix(&self.name));
        candidate.candidate_for = Some(self.name.clone());
        candidate.id = random_name();
        candidate.address = None;
        candidate.published = Vec::new();
        candidate.restart = Restart::No;
        candidate.remove = false;
        // The restore itself waits for its health.
        candidate.health_watch = None;
        // Without ports, a service gets the host's network if it can't have a private one.
        let private = self.network == Network::Private
            && !candidate.ports.is_empty()
            && why_no_private_network().is_none();
        candidate.network = if private { Network::Private } else { Network::None };
        for mount in candidate.mounts.iter_mut() {
            match &mut mount.source {
                MountSource::Volume(name) if !mount.read_only => {
                    *name = format!("{name}.restore-{mark}")
                }
                MountSource::Volume(_) => {}
                // The old service is using it.
                MountSource::Host(_) => mount.read_only = true,
            }
        }
        if candidate.ports.is_empty() {
            // Nothing is forwarded to them; they serve the health check.
            candidate.ports = exposed_ports(image)?;
        }
        Ok(candidate)
    }
}

impl<'a> Candidate<'a> {
    /// The name of the service that it is a copy of.
    pub(super) fn service(&self) -> &str {
        self.record.hostname()
    }

    /// Creates a fresh copy without starting it.
    pub(super) fn create(root: &Path, sandbox: &'a Sandbox, old: &Record) -> Result<Candidate<'a>> {
        let image = Store::open(root)?.load_image(&old.manifest)?;
        let mark = format!("{:04x}", rand::random::<u16>());
        let record = old.candidate(&image, &mark)?;
        let service_dir = ServiceDir::of(root, &record.name)?;
        // Cleaned up however svp ends, SIGKILL excepted.
        let cleaning = interrupt::cleaning();
        service_dir.create(&record)?;
        Ok(Candidate {
            root: root.to_owned(),
            sandbox,
            service_dir,
            record,
            mark,
            running: None,
            given_away: false,
            _cleaning: cleaning,
        })
    }

    /// Copies the volumes that the stopped service `old` writes, and that exist, to those of the copy.
    pub(super) fn copy_volumes(&self, store: &Store, volumes: &[MovedVolume]) -> Result<()> {
        let image = store.load_image(&self.record.manifest)?;
        let layers = layer_sources(store, &image);
        let overlay = self.sandbox.service_overlay(&self.record.id, layers, &Silent)?;
        for volume in volumes {
            interrupt::check()?;
            if !volume.fresh && self.sandbox.has_volume(&volume.name) {
                self.sandbox.copy_volume(&volume.name, &volume.new, &overlay)?;
            }
        }
        Ok(())
    }

    /// Unpacks a tar of changed files into the copy and its volumes.
    pub(super) fn import(
        &self,
        store: &Store,
        volumes: &VolumeRecord,
        tar: std::os::fd::OwnedFd,
    ) -> Result<()> {
        let image = store.load_image(&self.record.manifest)?;
        let layers = layer_sources(store, &image);
        let overlay = self.sandbox.service_overlay(&self.record.id, layers, &Silent)?;
        self.sandbox.import_volumes(&overlay, &self.record.saved_volumes(), volumes, tar)
    }

    /// Starts it, and waits until it is healthy.
    pub(super) fn start(&mut self, limit: Duration, reporter: &dyn Reporter) -> Result<()> {
        let failed = |error| Error::sandbox("can't create a pipe").source(error);
        let (signals, stop) = std::io::pipe().map_err(failed)?;
        let (root, service_dir) = (self.root.clone(), self.service_dir.clone());
        let (sender, started) = mpsc::channel();
        // The container's stages are tied to this thread (PDEATHSIG) and die with it.
        let thread = std::thread::spawn(move || {
            let mut started = || {
                // Notify the waiter once.
                let _ = sender.send(());
            };
            let mut hooks = Hooks { started: &mut started, show: &|_, _, _| {}, reporter: &Silent };
            monitor::run(&root, &service_dir, signals.into(), &mut hooks)
        });
        let stop = super::create::file(stop);
        self.running = Some(Running { stop, thread });
        if started.recv().is_err() {
            self.stop()?;
            return Err(Error::sandbox("the fresh copy ended at once"));
        }
        self.wait(limit, reporter)
    }

    /// Waits until it is healthy.
    pub(super) fn wait(&self, limit: Duration, reporter: &dyn Reporter) -> Result<()> {
        health::wait(&self.root, &self.service_dir, limit, reporter).map_err(|error| {
            let lines = self.last_lines();
            let error = Error::new(error.kind(), error.to_string());
            error.context("the fresh copy").hint(match lines.is_empty() {
                true => "it printed nothing".to_owned(),
                false => format!("its last output:\n{lines}"),
            })
        })
    }

    /// Its last lines of output.
    fn last_lines(&self) -> String {
        let mut lines = VecDeque::new();
        let Ok(entries) = std::fs::read_dir(self.service_dir.logs()) else { return String::new() };
        for entry in entries.flatten() {
            let Ok(file) = File::open(entry.path()) else { continue };
            for line in BufReader::new(file).split(b'\n').map_while(|line| line.ok()) {
                lines.push_back(String::from_utf8_lossy(&line).into_owned());
                if lines.len() > LINES {
                    lines.pop_front();
                }
            }
        }
        Vec::from(lines).join("\n")
    }

    /// Stops it, and waits for its end.
    pub(super) fn stop(&mut self) -> Result<()> {
        let Some(Running { mut stop, thread }) = self.running.take() else { return Ok(()) };
        // It may have ended already.
        let _ = stop.write_all(&[libc::SIGTERM as u8]);
        let ended = thread.join().unwrap_or_else(|_| Err(Error::sandbox("a thread panicked")));
        ended.map(drop)
    }

    /// Leaves its files to another service; removes only its own record.
    pub(super) fn leave_to_service(mut self) -> Result<()> {
        self.given_away = true;
        self.service_dir.remove()
    }

    /// Pairs its volumes with those of `record`, of which it was created.
    pub(super) fn moved_volumes(&self, record: &Record) -> Vec<MovedVolume> {
        let pairs = record.own_volumes().zip(self.record.own_volumes());
        let moved_volumes = |((name, _), (new, _)): ((&String, _), (&String, _))| MovedVolume {
            name: name.clone(),
            new: new.clone(),
            old: format!("{name}.before-restore-{}", self.mark),
            fresh: false,
        };
        pairs.map(moved_volumes).collect()
    }
}

impl Drop for Candidate<'_> {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            // With the SIGTERM of `stop` this makes two, which skip the grace period.
            let _ = running.stop.write_all(&[libc::SIGTERM as u8]);
        }
        // The copy is removed below, however it ended.
        let _ = self.stop();
        // The next restore or `svp rm` removes the rest: its record identifies it.
        if !self.given_away && remove_trees(&self.record, self.sandbox).is_ok() {
            // Best effort: a later command removes the rest.
            let _ = self.service_dir.remove();
        }
    }
}
