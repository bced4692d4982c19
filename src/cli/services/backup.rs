//! `svp backup` and `svp restore`.

use std::fs::File;
use std::io::{IsTerminal, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::super::args::CompressionFormat;
use super::super::common::Context;
use super::super::table;
use super::find::find;
use crate::error::{Error, IoContext, Result};
use crate::layer::settings::Settings;
use crate::progress::{BackupNote, Step, Warning, announce_if_slow};
use crate::sandbox::{End, Sandbox};
use crate::service::backup::create::{
    BACKUP, Output, Scripts, Sink, export_files, run_backup_script,
};
use crate::service::backup::header::BackupStart;
use crate::service::backup::output_file::OutputFile;
use crate::service::backup::restore::{self, Outcome, RestoreRequest};
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::shell_code;
use crate::store::{Store, StoreLayout};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BackupArgs {
    /// The name of the service
    #[arg(required_unless_present = "show")]
    name: Option<String>,
    /// Show the service, image, digest and time of an existing backup; - is standard input
    #[arg(long, value_name = "FILE", exclusive = true)]
    show: Option<PathBuf>,
    /// The file to write, replaced once the backup is complete [default: standard output, also -]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Compression; the decompressed backup is exactly the output of bin/backup
    #[arg(
        long,
        value_enum,
        value_name = "zstd|gzip|none",
        default_value = "zstd",
        hide_possible_values = true
    )]
    compression: CompressionFormat,
    /// Compression level: gzip 1 to 9, zstd 1 to 19
    #[arg(long, value_name = "N")]
    compression_level: Option<u32>,
    /// Restore the backup into a throwaway copy first; keep the file only if the copy is healthy
    #[arg(long)]
    verify: bool,
    /// With --verify: verify this backup instead of creating one
    #[arg(short, long, value_name = "FILE", requires = "verify", conflicts_with = "output")]
    input: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RestoreArgs {
    /// The name of the service
    name: String,
    /// The backup to read [default: standard input, also -]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Compression of the backup, if its first bytes do not identify it
    #[arg(long, value_enum, value_name = "zstd|gzip|none", hide_possible_values = true)]
    compression: Option<CompressionFormat>,
    #[command(flatten)]
    how: HowArgs,
}

/// Options for restoring a backup.
#[derive(Debug, clap::Args)]
struct HowArgs {
    /// Restore even if the backup is of another service
    #[arg(long)]
    force: bool,
    /// Seconds to wait until the service is healthy
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

/// The source of a backup.
struct Source {
    root: PathBuf,
    service_dir: ServiceDir,
    record: Record,
    scripts: Scripts,
}

pub(in crate::cli) fn backup(args: &BackupArgs, context: &Context) -> Result<ExitCode> {
    if let Some(path) = &args.show {
        return show_header(path, context);
    }
    let show = |bytes: &[u8]| context.show_script_errors(bytes);
    let settings = Settings::new(args.compression.into(), args.compression_level)?;
    let (root, service_dir) = find(args.name.as_deref().unwrap_or_default())?;
    if let Some(path) = &args.input {
        let input = input(Some(path))?;
        let outcome =
            restore::verify(request(&root, &service_dir, input, None, &args.how, context, &show))?;
        return verified(outcome, context);
    }
    let path = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let target = Target::new(path, args.verify)?;
    let source = Source::new(root, service_dir, context)?;
    // A slow reader must not prolong the service's downtime.
    let mut target = target.spooled(args.verify || !source.scripts.backup, &source.root)?;
    let end = source.write(&mut target, settings, context)?;
    if end != End::Exited(0) {
        let exit_code = shell_code(end);
        let file = path.map(|path| path.display().to_string());
        let file_kept = path.is_some_and(Path::exists);
        context.reporter().warning(Warning::BackupFailed { exit_code, file, file_kept });
        return Ok(own_code(exit_code));
    }
    if args.verify {
        let (root, service_dir) = (&source.root, &source.service_dir);
        let written = target.written()?;
        // Don't detect the compression: an uncompressed backup may begin like a compressed one.
        let compression = Some(args.compression);
        let outcome = restore::verify(request(
            root,
            service_dir,
            written,
            compression,
            &args.how,
            context,
            &show,
        ))?;
        if outcome != Outcome::Done {
            return verified(outcome, context);
        }
        verified(outcome, context)?;
    }
    target.finish()?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn restore(args: &RestoreArgs, context: &Context) -> Result<ExitCode> {
    let (root, service_dir) = find(&args.name)?;
    let path = args.input.as_deref().filter(|path| *path != Path::new("-"));
    let input = input(path)?;
    let show = |bytes: &[u8]| context.show_script_errors(bytes);
    let request = request(&root, &service_dir, input, args.compression, &args.how, context, &show);
    match restore::restore(request)? {
        Outcome::Done => {
            context.print(&format!("{}\n", args.name))?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Failed(end) => Ok(failed_restore(end, false, context)),
    }
}

/// Prints the header of a backup.
fn show_header(path: &Path, context: &Context) -> Result<ExitCode> {
    let mut input = input(Some(path).filter(|path| *path != Path::new("-")))?;
    let header = BackupStart::read(&mut input, None)?.header.ok_or_else(|| {
        Error::bad_input("the backup has no header")
            .hint("it was created without compression, or recompressed by another tool")
    })?;
    context.print(&table::json(&header))?;
    Ok(ExitCode::SUCCESS)
}

fn verified(outcome: Outcome, context: &Context) -> Result<ExitCode> {
    match outcome {
        Outcome::Done => {
            context.reporter().note(BackupNote::Verified.into());
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Failed(end) => Ok(failed_restore(end, true, context)),
    }
}

/// Reports that `bin/restore` failed; returns its exit code.
fn failed_restore(end: End, verifying: bool, context: &Context) -> ExitCode {
    let exit_code = shell_code(end);
    context.reporter().warning(Warning::RestoreFailed { exit_code, verifying });
    own_code(exit_code)
}

/// Converts a script's exit code to svp's own.
fn own_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

fn request<'a>(
    root: &'a Path,
    service_dir: &'a ServiceDir,
    input: File,
    compression: Option<CompressionFormat>,
    how: &HowArgs,
    context: &'a Context,
    show: &'a (dyn Fn(&[u8]) + Sync),
) -> RestoreRequest<'a> {
    RestoreRequest {
        root,
        service_dir,
        input,
        compression: compression.map(Into::into),
        force: how.force,
        limit: Duration::from_secs(how.wait),
        show,
        reporter: context.reporter(),
    }
}

/// Opens the backup to read.
fn input(path: Option<&Path>) -> Result<File> {
    if let Some(path) = path {
        return File::open(path).io("open", path);
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Error::usage("refusing to read a backup from a terminal")
            .hint("name a file with -i, or redirect standard input"));
    }
    stdin.as_fd().try_clone_to_owned().map(File::from).io("open", "standard input")
}

/// The destination of a backup.
enum Target {
    /// A file, replaced once the backup is complete.
    File(OutputFile),
    /// Standard output, streamed.
    Stdout(File),
    /// Standard output, after the whole backup was written to an unnamed file.
    Spool(File, Box<Target>),
    /// None: the backup is only verified.
    Nowhere(std::io::Sink),
}

impl Target {
    fn new(path: Option<&Path>, verify: bool) -> Result<Target> {
        let refuse = || {
            Err(Error::usage("refusing to write a backup to a terminal")
                .hint("redirect standard output, or name a file with -o"))
        };
        if let Some(path) = path {
            let new = OutputFile::create(path)?;
            return if new.file().is_terminal() { refuse() } else { Ok(Target::File(new)) };
        }
        let stdout = std::io::stdout();
        match stdout.is_terminal() {
            true if verify => Ok(Target::Nowhere(std::io::sink())),
            true => refuse(),
            false => {
                let stdout = stdout.as_fd().try_clone_to_owned();
                Ok(Target::Stdout(File::from(stdout.io("open", "standard output")?)))
            }
        }
    }

    /// Switches from streaming to an unnamed file if `needed`.
    fn spooled(self, needed: bool, root: &Path) -> Result<Target> {
        if !needed || matches!(&self, Target::File(new) if new.is_regular()) {
            return Ok(self);
        }
        let dir = StoreLayout::new(root).tmp();
        Ok(Target::Spool(tempfile::tempfile_in(&dir).io("create a file in", &dir)?, Box::new(self)))
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Target::File(new) => new,
            Target::Stdout(file) | Target::Spool(file, _) => file,
            Target::Nowhere(sink) => sink,
        }
    }

    /// Returns the bytes written so far, positioned at the start.
    fn written(&self) -> Result<File> {
        let file = match self {
            Target::File(new) => new.file(),
            Target::Spool(file, _) => file,
            _ => return Err(Error::usage("can't verify a backup that is not kept")),
        };
        let mut file = file.try_clone().io("read", "the backup")?;
        file.rewind().io("read", "the backup")?;
        Ok(file)
    }

    fn finish(self) -> Result<()> {
        let (mut spool, target) = match self {
            Target::File(new) => return new.finish(),
            Target::Spool(spool, target) => (spool, *target),
            _ => return Ok(()),
        };
        spool.rewind().io("read", "the backup")?;
        match target {
            Target::File(mut to) => std::io::copy(&mut spool, &mut to).io("write", "the backup"),
            Target::Stdout(mut to) => std::io::copy(&mut spool, &mut to).io("write", "the backup"),
            _ => return Ok(()),
        }
        .map(drop)
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer().flush()
    }
}

impl Sink for Target {
    fn discard(&mut self) {
        match self {
            Target::File(new) => new.discard(),
            Target::Spool(file, _) => drop(file.set_len(0)),
            Target::Stdout(_) | Target::Nowhere(_) => {}
        }
    }
}

impl Source {
    fn new(root: PathBuf, service_dir: ServiceDir, context: &Context) -> Result<Source> {
        let record = service_dir.record()?;
        let scripts = {
            let store = Store::open(&root)?;
            let sandbox = Sandbox::create(&StoreLayout::new(&root).trees())?;
            Scripts::of(&store, &sandbox, &record, context.reporter())?
        };
        Ok(Source { root, service_dir, record, scripts })
    }

    /// Writes the backup; returns the exit status of the pack's script.
    fn write(&self, to: &mut dyn Sink, settings: Settings, context: &Context) -> Result<End> {
        let show = |bytes: &[u8]| context.show_script_errors(bytes);
        let output = Output { to, settings, show: &show };
        if !self.scripts.backup {
            export_files(&self.root, &self.service_dir, output, context.reporter())?;
            return Ok(End::Exited(0));
        }
        if !self.scripts.restore {
            context.reporter().note(BackupNote::NoRestoreScript.into());
        }
        let reporter = context.reporter();
        let step = Step::RunScript { script: BACKUP.to_owned(), phase: None };
        let (end, any) = announce_if_slow(reporter, step, || {
            run_backup_script(&self.root, &self.service_dir, &self.record, output, reporter)
        })?;
        if end == End::Exited(0) && !any {
            context.reporter().warning(Warning::BackupEmpty);
        }
        Ok(end)
    }
}
