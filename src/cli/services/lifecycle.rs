//! `svp start`, `stop`, `restart`, `wait` and `rm`.

use std::path::Path;
use std::process::ExitCode;

use super::super::args::{Seconds, parsed};
use super::super::common::{Context, Format};
use super::super::run::foreground;
use super::super::table;
use super::find::find;
use super::show::ServiceInfo;
use crate::error::{Error, Result};
use crate::progress::ServiceNote;
use crate::service::lifecycle::{self, Remove, Removed, Restart, Start, Stop};
use crate::service::service_dir::ServiceDir;
use crate::service::tag_drift;
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StartArgs {
    /// The names of the services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Print its output, and stop it on Ctrl-C
    #[arg(short, long)]
    attach: bool,
    /// Wait until its ports listen or `query health` passes, at most SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60", value_parser = parsed::<Seconds>)]
    wait: Option<Seconds>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StopArgs {
    /// The names of the services
    #[arg(required_unless_present = "all", value_name = "NAME")]
    names: Vec<String>,
    /// All running services
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// Seconds between the stop signal and SIGKILL [default: those of `query stop`, else 10]
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u32>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RestartArgs {
    /// The name of the service
    name: String,
    /// The components to restart; the others keep running
    components: Vec<String>,
    /// Seconds between the stop signal and SIGKILL [default: those of `query stop`, else 10]
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u32>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct WaitArgs {
    /// The names of the services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RemoveArgs {
    /// The names of the services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Stop running services first
    #[arg(short, long)]
    force: bool,
    /// Remove their volumes too, with all data; those that other services use stay
    #[arg(short = 'v', long)]
    volumes: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(in crate::cli) fn start(args: &StartArgs, context: &Context) -> Result<ExitCode> {
    if args.attach {
        let [name] = &args.names[..] else {
            return Err(Error::usage("--attach takes one service"));
        };
        let (root, service_dir) = find(name)?;
        note_moved_tag(&service_dir, context)?;
        return foreground(&root, &service_dir, &service_dir.record()?, context);
    }
    let root = Store::default_root()?;
    let service_dirs = existing(&root, &args.names)?;
    let request = Start { wait: args.wait.map(|Seconds(limit)| limit) };
    for service_dir in &service_dirs {
        lifecycle::start(&root, service_dir, &request, context.reporter())?;
        note_moved_tag(service_dir, context)?;
        print_name(service_dir, args.format, context)?;
    }
    finish(&service_dirs, args.format, context)
}

/// Notes that a service which was started has not taken the image that its tag names now.
fn note_moved_tag(service_dir: &ServiceDir, context: &Context) -> Result<()> {
    let record = service_dir.record()?;
    let tagged = tag_drift::tagged_digest(service_dir.root(), &record);
    if let Some(tagged) = tagged.filter(|_| tag_drift::is_outdated(tagged, &record)) {
        let (service, image) = (record.name, record.image);
        let (running, tagged) = (record.manifest.digest.to_string(), tagged.to_string());
        let note = ServiceNote::TagMoved { service, image, running, tagged };
        context.reporter().note(note.into());
    }
    Ok(())
}

/// Prints the name of a service that is done; JSON is printed once, by [`finish`].
fn print_name(service_dir: &ServiceDir, format: Format, context: &Context) -> Result<()> {
    match format {
        Format::Table => context.print(&format!("{}\n", service_dir.name())),
        Format::Json => Ok(()),
    }
}

fn finish(service_dirs: &[ServiceDir], format: Format, context: &Context) -> Result<ExitCode> {
    if format == Format::Json {
        let shown = service_dirs.iter().map(ServiceInfo::of).collect::<Result<Vec<_>>>()?;
        context.print(&table::json(&shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn stop(args: &StopArgs, context: &Context) -> Result<ExitCode> {
    let root = Store::default_root()?;
    let mut service_dirs =
        if args.all { lifecycle::running(&root)? } else { existing(&root, &args.names)? };
    let request = Stop { seconds: args.time };
    for service_dir in &service_dirs {
        lifecycle::stop(service_dir, &request, context.reporter())?;
        print_name(service_dir, args.format, context)?;
    }
    // A service run with --rm no longer exists.
    service_dirs.retain(|service_dir| ServiceDir::existing(&root, service_dir.name()).is_ok());
    finish(&service_dirs, args.format, context)
}

pub(in crate::cli) fn restart(args: &RestartArgs, context: &Context) -> Result<ExitCode> {
    let (root, service_dir) = find(&args.name)?;
    let request =
        Restart { components: args.components.clone(), stop: Stop { seconds: args.time } };
    lifecycle::restart(&root, &service_dir, &request, context.reporter())?;
    if args.components.is_empty() {
        note_moved_tag(&service_dir, context)?;
    }
    print_name(&service_dir, args.format, context)?;
    finish(&[service_dir], args.format, context)
}

pub(in crate::cli) fn wait(args: &WaitArgs, context: &Context) -> Result<ExitCode> {
    let service_dirs = existing(&Store::default_root()?, &args.names)?;
    let mut codes = Vec::new();
    for service_dir in &service_dirs {
        let code = lifecycle::wait(service_dir)?;
        if args.format == Format::Table {
            context.print(&format!("{code}\n"))?;
        }
        codes.push(serde_json::json!({ "name": service_dir.name(), "exitCode": code }));
    }
    if args.format == Format::Json {
        context.print(&table::json(&codes))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens all named services, so that a wrong name is reported before anything changes.
fn existing(root: &Path, names: &[String]) -> Result<Vec<ServiceDir>> {
    names.iter().map(|name| ServiceDir::existing(root, name)).collect()
}

pub(in crate::cli) fn remove(args: &RemoveArgs, context: &Context) -> Result<ExitCode> {
    let root = Store::default_root()?;
    let request = Remove { force: args.force, volumes: args.volumes };
    let mut removed = Vec::new();
    for service_dir in existing(&root, &args.names)? {
        let name = service_dir.name();
        let left = lifecycle::remove(&root, &service_dir, &request, context.reporter())?;
        report_leftovers(name, &left, args.volumes, context);
        print_name(&service_dir, args.format, context)?;
        removed.push(serde_json::json!({ "name": name }));
    }
    if args.format == Format::Json {
        context.print(&table::json(&removed))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report_leftovers(name: &str, left: &Removed, requested: bool, context: &Context) {
    let reporter = context.reporter();
    if !left.linked.is_empty() {
        let (service, users) = (name.to_owned(), left.linked.clone());
        reporter.note(ServiceNote::LinkedBy { service, users }.into());
    }
    for volume in &left.volumes.removed {
        reporter.note(ServiceNote::VolumeRemoved { volume: volume.clone() }.into());
    }
    if requested {
        for volume in &left.volumes.shared {
            reporter.note(ServiceNote::VolumeShared { volume: volume.clone() }.into());
        }
    }
    if !left.volumes.kept.is_empty() {
        let volumes = left.volumes.kept.clone();
        reporter.note(ServiceNote::VolumesKept { volumes }.into());
    }
}
