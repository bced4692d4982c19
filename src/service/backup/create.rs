//! Creates a backup: the output of the pack's `bin/backup`, streamed; without that script, a copy of the files that the
//! service has changed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cutover::{CopyLock, RestoreLock, recover_abandoned};
use super::header::{Content, Header};
use super::meter::{Meter, Metered};
use super::quiesce::{lock, shared};
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::layer::compress::Encoder;
use crate::layer::settings::Settings;
use crate::progress::{BackupNote, Reporter, Silent, Warning};
use crate::sandbox::{End, Sandbox, Stdio, layer_sources, output_pipe};
use crate::service::exec::{self, drain, join_container};
use crate::service::lifecycle::{Stop, stop_if_running};
use crate::service::links;
use crate::service::monitor;
use crate::service::mount::MountSource;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::State;
use crate::store::{Store, StoreLayout};

/// The script that prints a backup.
pub(crate) const BACKUP: &str = "/service/bin/backup";
/// The script that reads the output of [`BACKUP`].
pub(crate) const RESTORE: &str = "/service/bin/restore";
/// How long processes left behind by `bin/backup` may hold its output open without writing.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Which of the scripts an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scripts {
    /// [`BACKUP`].
    pub backup: bool,
    /// [`RESTORE`].
    pub restore: bool,
}

impl Scripts {
    /// Finds the scripts in a service's image.
    ///
    /// # Errors
    /// Those of unpacking it.
    pub(crate) fn of(
        store: &Store,
        sandbox: &Sandbox,
        record: &Record,
        reporter: &dyn Reporter,
    ) -> Result<Scripts> {
        let image = store.load_image(&record.manifest)?;
        let rootfs = sandbox.build_rootfs(layer_sources(store, &image), reporter)?;
        let found = sandbox.present(&rootfs, &[BACKUP, RESTORE])?;
        Ok(Scripts { backup: found.first() == Some(&true), restore: found.get(1) == Some(&true) })
    }
}

/// A destination for a backup.
pub(crate) trait Sink: Write + Send {
    /// Discards the bytes written so far: the backup failed, and its space may be needed.
    fn discard(&mut self);
}

/// Output settings of a backup.
pub(crate) struct Output<'a> {
    /// The destination. After a failure it holds a truncated stream that every decompressor rejects.
    pub to: &'a mut dyn Sink,
    /// How it is compressed.
    pub settings: Settings,
    /// Receives the script's standard error.
    pub show: &'a (dyn Fn(&[u8]) + Sync),
}

/// Runs `bin/backup` in a service and writes its output; returns its exit status and whether it printed anything. Only
/// with exit status 0 is the backup complete.
///
/// # Errors
/// Those of running it; [`Kind::Storage`] if the output can't be written, [`Kind::Script`] if processes that it
/// started keep its output open, [`Kind::Interrupted`].
pub(crate) fn run_backup_script(
    root: &Path,
    service_dir: &ServiceDir,
    record: &Record,
    output: Output<'_>,
    reporter: &dyn Reporter,
) -> Result<(End, bool)> {
    let failed = |error| Error::new(Kind::Storage, "can't create a pipe").source(error);
    let spec = exec::spec(&Store::open(root)?, record, vec![BACKUP.to_owned()])?;
    let (stdout, theirs) = output_pipe()?;
    let (stderr, errors) = output_pipe()?;
    let null = File::open("/dev/null").map_err(failed)?;
    let stdio = Stdio::Pipes([null.into(), theirs, errors]);
    let joined = join_container(service_dir, &spec, stdio)?;
    let killer = joined.signaller()?;
    let header = Header::new(&record.name, &record.image, record.manifest.digest, Content::Script);
    let Output { to, settings, show } = output;
    header.write(settings.compression(), to)?;
    let encoder = Encoder::new(to, settings, threads())?;
    let ended = AtomicBool::new(false);
    let (stdout, stderr) = (file(stdout), file(stderr));
    std::thread::scope(|scope| {
        let (ended, killer) = (&ended, &killer);
        let end = scope.spawn(move || {
            let end = joined.wait();
            if interrupt::requested() {
                // Its children would stay in the service and might hold locks.
                killer.signal(libc::SIGKILL);
            }
            ended.store(true, Ordering::SeqCst);
            end
        });
        scope.spawn(move || {
            // Standard error is only shown: losing some of it is no failure.
            let _ = drain(&stderr, ended, Duration::ZERO, &mut |bytes| {
                show(bytes);
                Ok::<(), Error>(())
            });
        });
        let mut encoder = encoder;
        let mut any = false;
        let mut meter = Meter::of_backup(&record.name, reporter);
        let written = drain(&stdout, ended, DRAIN_TIMEOUT, &mut |bytes| {
            any |= !bytes.is_empty();
            meter.add(bytes.len());
            encoder.write_all(bytes).map_err(write_error)
        });
        if written.is_err() {
            killer.signal(libc::SIGKILL);
        }
        // Remaining writers get SIGPIPE.
        drop(stdout);
        let end = end.join().unwrap_or_else(|_| Err(Error::sandbox("waiting panicked")));
        interrupt::check()?;
        let (whole, end) = (written?, end?);
        if end == End::Exited(0) {
            if !whole {
                return Err(output_still_open());
            }
            encoder.end().and_then(|to| to.flush()).map_err(write_error)?;
        }
        Ok((end, any))
    })
}

/// Writes a tar of a service's volumes and other changed files. The service is stopped meanwhile.
///
/// # Errors
/// Those of stopping and starting it; [`Kind::Usage`] for a running service that was run with `--rm`;
/// [`Kind::Storage`], [`Kind::Sandbox`], [`Kind::Interrupted`].
pub(crate) fn export_files(
    root: &Path,
    service_dir: &ServiceDir,
    output: Output<'_>,
    reporter: &dyn Reporter,
) -> Result<()> {
    let Output { to, settings, show } = output;
    let name = service_dir.name();
    let restore_lock = RestoreLock::take(service_dir)?;
    // A stop before this point succeeds; a later one is refused with the reason.
    let _copy_lock = CopyLock::begin(service_dir, &restore_lock)?;
    let runs = matches!(service_dir.status()?.state, State::Running | State::Starting);
    if runs && service_dir.record()?.remove {
        return Err(Error::usage(format!("{name} can't be stopped: it was run with --rm"))
            .hint("without bin/backup, a copy is made while it is stopped"));
    }
    // The service must be able to start again.
    if runs {
        links::resolve(root, &service_dir.record()?)?;
    }
    let sandbox = Sandbox::create(&StoreLayout::new(root).trees())?;
    recover_abandoned(root, service_dir, &sandbox, &restore_lock)?;
    // The service must run again before svp exits.
    let _cleaning = interrupt::cleaning();
    reporter.note(BackupNote::CopiesFiles { service: name.to_owned(), stopped: runs }.into());
    let copied = (|| {
        stop_if_running(service_dir, &Stop::default(), reporter)?;
        let _lock = lock(service_dir, reporter)?;
        let output = Output { to: &mut *to, settings, show };
        copy(root, &service_dir.record()?, &sandbox, output, reporter)
    })();
    if copied.is_err() {
        // The service needs disk space to start, and the partial backup may occupy all that is free.
        to.discard();
    }
    if !runs {
        return copied;
    }
    match (copied, monitor::start(root, service_dir, reporter)) {
        (copied, Ok(())) => copied,
        (Ok(()), Err(error)) => Err(error.context(format!("{name} did not start again"))),
        (Err(failed), Err(error)) => {
            let hint = format!("{name} did not start again: {error}; `svp start {name}` starts it");
            Err(failed.hint(hint))
        }
    }
}

/// Unwraps a write error from the compressor's error.
fn write_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::new(Kind::Storage, "the backup's reader has exited")
            .source(io::Error::from(error.kind())),
        io::ErrorKind::StorageFull => Error::io("write", "the backup", rustix::io::Errno::NOSPC),
        _ => Error::io("write", "the backup", error),
    }
}

fn copy(
    root: &Path,
    record: &Record,
    sandbox: &Sandbox,
    output: Output<'_>,
    reporter: &dyn Reporter,
) -> Result<()> {
    for mount in record.mounts.iter() {
        if let MountSource::Host(path) = &mount.source {
            let (path, at) = (path.clone(), mount.at.clone());
            reporter.note(BackupNote::HostPathSkipped { path, at }.into());
        }
    }
    if let Some((name, volume)) = shared(root, record)? {
        reporter.warning(Warning::SharedVolume { service: name, volume });
    }
    let failed = |error| Error::new(Kind::Storage, "can't create a pipe").source(error);
    let overlay = {
        let store = Store::open(root)?;
        let image = store.load_image(&record.manifest)?;
        sandbox.service_overlay(&record.id, layer_sources(&store, &image), &Silent)?
    };
    let Output { to, settings, .. } = output;
    let header = Header::new(&record.name, &record.image, record.manifest.digest, Content::Files);
    header.write(settings.compression(), to)?;
    let mut encoder = Encoder::new(to, settings, threads())?;
    let (tar, theirs) = std::io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let meter = Meter::of_backup(&record.name, reporter);
        let volumes = record.saved_volumes();
        let saved = scope.spawn(move || sandbox.export_volumes(&overlay, &volumes, theirs.into()));
        let written =
            io::copy(&mut Metered { from: tar, meter }, &mut encoder).map_err(write_error);
        let saved = saved.join().unwrap_or_else(|_| Err(Error::sandbox("copying panicked")));
        interrupt::check()?;
        written?;
        saved?;
        encoder.end().and_then(|to| to.flush()).map_err(write_error)
    })
}

fn output_still_open() -> Error {
    Error::new(
        Kind::Script,
        "bin/backup has ended, but a process that it started still holds its standard output open",
    )
    .hint("the backup may be incomplete: let the script wait for the processes that it starts")
}

pub(super) fn file(pipe: impl Into<OwnedFd>) -> File {
    File::from(pipe.into())
}

pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
