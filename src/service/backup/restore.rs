//! Restores a backup: creates a fresh copy of the service from its image, reads the backup into the copy, and replaces
//! the service by the copy only if the copy is healthy.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::candidate::Candidate;
use super::create::{RESTORE, Scripts, file};
use super::cutover::{RestoreLock, recover_abandoned};
use super::header::{BackupStart, Content, Header};
use super::meter::Meter;
use super::quiesce::refuse_shared;
use super::replace::Replacement;
use super::stream_to_script::{InterruptibleReader, stream_to_script};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::oci::media_type::Compression;
use crate::progress::{BackupNote, Reporter, Step, Warning, announce_if_slow};
use crate::sandbox::{End, Sandbox, Stdio, VolumeRecord, input_pipe, output_pipe};
use crate::service::exec::{self, drain, join_container};
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::store::{Store, StoreLayout};

/// The state of a service after a failed restore.
const UNCHANGED: &str = "not restored, everything is as it was";

/// A request to restore a backup.
pub(crate) struct RestoreRequest<'a> {
    /// The store's root.
    pub root: &'a Path,
    /// The service.
    pub service_dir: &'a ServiceDir,
    /// The backup.
    pub input: File,
    /// Its compression, unless it is detected from the first bytes.
    pub compression: Option<Compression>,
    /// Accept a backup of another service.
    pub force: bool,
    /// Time limit for the copy to become healthy.
    pub limit: Duration,
    /// Receives the script's output.
    pub show: &'a (dyn Fn(&[u8]) + Sync),
    /// Receives all other events.
    pub reporter: &'a dyn Reporter,
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is restored.
    Done,
    /// `bin/restore` failed in this way; the service is unchanged.
    Failed(End),
}

/// Restores a service. On failure the service is unchanged, and runs if it ran before.
///
/// # Errors
/// [`Kind::BadInput`] for a backup that is damaged or of another service, [`Kind::Script`] if the fresh copy
/// is not healthy, [`Kind::Usage`], [`Kind::Storage`], [`Kind::Sandbox`], [`Kind::Interrupted`].
pub(crate) fn restore(request: RestoreRequest<'_>) -> Result<Outcome> {
    let (root, service_dir, reporter) = (request.root, request.service_dir, request.reporter);
    let limit = request.limit;
    let old = service_dir.record()?;
    if old.remove {
        return Err(Error::usage(format!(
            "{} was run with --rm: a stop would remove it",
            old.name
        ))
        .hint("run it without --rm, then restore"));
    }
    let sandbox = Sandbox::create(&StoreLayout::new(root).trees())?;
    let restore_lock = RestoreLock::take(service_dir)?;
    recover_abandoned(root, service_dir, &sandbox, &restore_lock)?;
    let old = service_dir.record()?;
    refuse_shared(root, &old, "then it gets the restored data")?;
    let mut candidate = Candidate::create(root, &sandbox, &old)?;
    let read = read_into(&mut candidate, request, &sandbox).and_then(|outcome| {
        if outcome == Outcome::Done {
            announce_if_slow(reporter, Step::StopService, || candidate.stop())?;
            announce_if_slow(reporter, Step::SyncFiles, || sandbox.sync())?;
        }
        Ok(outcome)
    });
    if let failed @ Outcome::Failed(_) = read.context(UNCHANGED)? {
        return Ok(failed);
    }
    reporter.step(Step::Cutover);
    let new = Record { id: candidate.record.id.clone(), ..service_dir.record()? };
    let volumes = candidate.moved_volumes(&new);
    let replacement = Replacement { root, service_dir, sandbox: &sandbox, limit, reporter };
    replacement.run(candidate, new, volumes, &|_, _| Ok(()), UNCHANGED).map(|()| Outcome::Done)
}

/// Restores a backup in a fresh copy of the service, and removes the copy again.
///
/// # Errors
/// As [`restore`].
pub(crate) fn verify(request: RestoreRequest<'_>) -> Result<Outcome> {
    let (root, service_dir) = (request.root, request.service_dir);
    let sandbox = Sandbox::create(&StoreLayout::new(root).trees())?;
    let restore_lock = RestoreLock::take(service_dir)?;
    recover_abandoned(root, service_dir, &sandbox, &restore_lock)?;
    let mut candidate = Candidate::create(root, &sandbox, &service_dir.record()?)?;
    read_into(&mut candidate, request, &sandbox)
}

/// Fills a fresh copy from the backup and waits until it is healthy. The copy keeps running.
fn read_into(
    candidate: &mut Candidate<'_>,
    mut request: RestoreRequest<'_>,
    sandbox: &Sandbox,
) -> Result<Outcome> {
    let reporter = request.reporter;
    let record = candidate.record.clone();
    let name = request.service_dir.name();
    let start = BackupStart::read(&mut InterruptibleReader(&request.input), request.compression)?;
    check(start.header.as_ref(), &record, name, request.force, reporter)?;
    let content = {
        let store = Store::open(request.root)?;
        let scripts = Scripts::of(&store, sandbox, &record, reporter)?;
        content(start.header.as_ref(), scripts, name)?
    };
    match content {
        Content::Script => {
            reporter.step(Step::StartCopy);
            candidate.start(request.limit, reporter)?;
            reporter.step(Step::RunScript { script: RESTORE.to_owned(), phase: None });
            let end = run_script(candidate, start, &mut request)?;
            if end != End::Exited(0) {
                return Ok(Outcome::Failed(end));
            }
            candidate.wait(request.limit, reporter)?;
        }
        Content::Files => {
            reporter.step(Step::UnpackBackup);
            unpack(candidate, start, &request)?;
            candidate.start(request.limit, reporter)?;
        }
    }
    Ok(Outcome::Done)
}

/// Compares the backup's header with the service.
fn check(
    header: Option<&Header>,
    record: &Record,
    name: &str,
    force: bool,
    reporter: &dyn Reporter,
) -> Result<()> {
    let Some(header) = header else {
        reporter.note(BackupNote::NoHeader.into());
        return Ok(());
    };
    reporter.step(Step::ReadBackup {
        service: header.service.clone(),
        image: header.image.clone(),
        created: header.created.to_string(),
    });
    let same = header.digest == record.manifest.digest;
    // A copy by svp consists of changes to that exact image.
    let fits = same || (header.image == record.image && header.content == Content::Script);
    if fits && !same {
        let (image, digest) = (header.image.clone(), header.digest.to_string());
        reporter.warning(Warning::OtherImage { image, digest });
    }
    if fits || force {
        return Ok(());
    }
    Err(Error::bad_input(format!(
        "the backup is of {} with the image {} ({}), but {name} has {} ({})",
        header.service,
        header.image,
        header.digest.short(),
        record.image,
        record.manifest.digest.short()
    ))
    .hint("to restore it in this service anyway, add --force"))
}

/// Determines the kind of data, and whether the pack can read it.
fn content(header: Option<&Header>, scripts: Scripts, name: &str) -> Result<Content> {
    let content = match header {
        Some(header) => header.content,
        None if scripts.backup || scripts.restore => Content::Script,
        None => Content::Files,
    };
    if content == Content::Script && !scripts.restore {
        return Err(Error::usage(format!("the pack of {name} has no bin/restore"))
            .hint("only the pack can read the output of its bin/backup"));
    }
    Ok(content)
}

/// Runs `bin/restore` in the fresh copy with the backup on its standard input.
fn run_script(
    candidate: &Candidate<'_>,
    start: BackupStart,
    request: &mut RestoreRequest<'_>,
) -> Result<End> {
    let failed = |error| Error::new(Kind::Storage, "can't create a pipe").source(error);
    let spec = {
        let store = Store::open(request.root)?;
        exec::spec(&store, &candidate.record, vec![RESTORE.to_owned()])?
    };
    let (stdin, into) = input_pipe()?;
    let (output, theirs) = output_pipe()?;
    let errors = theirs.try_clone().map_err(failed)?;
    let stdio = Stdio::Pipes([stdin, theirs, errors]);
    let joined = join_container(&candidate.service_dir, &spec, stdio)?;
    let killer = joined.signaller()?;
    let show = request.show;
    let input = request.input.try_clone().map_err(failed)?;
    let (ended, failed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (ended, failed) = (&ended, &failed);
        let end = scope.spawn(move || {
            let end = joined.wait();
            failed.store(!matches!(end, Ok(End::Exited(0))), Ordering::SeqCst);
            ended.store(true, Ordering::SeqCst);
            end
        });
        scope.spawn(move || {
            // The output is only shown: losing some of it is no failure.
            let _ = drain(&file(output), ended, Duration::ZERO, &mut |bytes| {
                show(bytes);
                Ok::<(), Error>(())
            });
        });
        let mut into = file(into);
        let meter = Meter::of_restore(candidate.service(), &input, request.reporter);
        let failed = || failed.load(Ordering::SeqCst);
        let streamed = stream_to_script(start, input, &mut into, &failed, meter);
        if streamed.is_err() {
            // Before its input ends: the script must not mistake a part for the whole backup.
            killer.signal(libc::SIGKILL);
        }
        drop(into);
        let end = end.join().unwrap_or_else(|_| Err(Error::sandbox("waiting panicked")));
        interrupt::check()?;
        streamed.and(end)
    })
}

/// Unpacks a tar of changed files into the fresh copy.
fn unpack(
    candidate: &Candidate<'_>,
    start: BackupStart,
    request: &RestoreRequest<'_>,
) -> Result<()> {
    let failed = |error| Error::new(Kind::Storage, "can't create a pipe").source(error);
    let (tar, into) = io::pipe().map_err(failed)?;
    let input = request.input.try_clone().map_err(failed)?;
    let store = Store::open(request.root)?;
    let own = candidate.record.volume_record();
    let digest = candidate.record.manifest.digest;
    let same = start.header.as_ref().is_some_and(|header| header.digest == digest);
    // The files of another image have the secrets of another setup.
    let volumes = if same { own } else { VolumeRecord { setup: None, ..own } };
    std::thread::scope(|scope| {
        let (store, volumes) = (&store, &volumes);
        let filled = scope.spawn(move || candidate.import(store, volumes, OwnedFd::from(tar)));
        let mut into = file(into);
        // The import reads to the end, or has failed.
        let meter = Meter::of_restore(candidate.service(), &input, request.reporter);
        let streamed = stream_to_script(start, input, &mut into, &|| true, meter);
        drop(into);
        let filled = filled.join().unwrap_or_else(|_| Err(Error::sandbox("unpacking panicked")));
        interrupt::check()?;
        streamed.and(filled)
    })
}
