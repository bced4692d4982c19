//! `svp start`, `stop`, `restart`, `wait` and `rm`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::super::common::{Context, Format};
use super::super::run::{foreground, seconds};
use super::super::table;
use super::show::ServiceInfo;
use super::{find, say};
use crate::error::{Cause, Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::Sandbox;
use crate::service::backup::cutover;
use crate::service::control::{Request, request};
use crate::service::service_dir::ServiceDir;
use crate::service::status::{ComponentStatus, State};
use crate::service::supervise::STOP_SECONDS;
use crate::service::{self, health, links, monitor};
use crate::store::Store;

/// Interval at which a restarting component is polled.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StartArgs {
    /// The names of the services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Print its output, and stop it on Ctrl-C
    #[arg(short, long)]
    attach: bool,
    /// Wait until its ports listen or `query health` passes, at most SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, value_parser = seconds)]
    wait: Option<Option<u64>>,
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
    /// Seconds to wait before it is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = STOP_SECONDS)]
    time: u32,
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
    /// Seconds to wait before it is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = STOP_SECONDS)]
    time: u32,
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
    /// Remove their volumes too, with all data
    #[arg(long)]
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
        return foreground(&root, &service_dir, &service_dir.record()?, context);
    }
    let root = Store::default_root()?;
    let service_dirs = existing(&root, &args.names)?;
    for service_dir in &service_dirs {
        not_copied(service_dir)?;
        monitor::start(&root, service_dir, context.reporter())?;
        if let Some(limit) = args.wait {
            health::wait(&root, service_dir, Duration::from_secs(limit.unwrap_or(60)))?;
        }
        name_of(service_dir, args.format, context)?;
    }
    finish(&service_dirs, args.format, context)
}

/// Prints the name of each service when it is done; JSON is printed once, at the end.
fn name_of(service_dir: &ServiceDir, format: Format, context: &Context) -> Result<()> {
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
    let mut service_dirs: Vec<ServiceDir> = if args.all {
        let all = ServiceDir::all(&root)?.into_iter();
        let runs = |service_dir: &ServiceDir| {
            service_dir.status().is_ok_and(|s| s.state == State::Running)
        };
        all.filter(|service_dir| {
            runs(service_dir) || cutover::is_being_copied(service_dir).unwrap_or(false)
        })
        .collect()
    } else {
        existing(&root, &args.names)?
    };
    for service_dir in &service_dirs {
        stop_one(service_dir, args.time, context)?;
        name_of(service_dir, args.format, context)?;
    }
    // A service run with --rm no longer exists.
    service_dirs.retain(|service_dir| ServiceDir::existing(&root, service_dir.name()).is_ok());
    finish(&service_dirs, args.format, context)
}

/// Refuses to touch a service that is stopped for a backup's copy: it is started again whatever is done to it.
fn not_copied(service_dir: &ServiceDir) -> Result<()> {
    if cutover::is_being_copied(service_dir)? { Err(at_work(service_dir)) } else { Ok(()) }
}

fn at_work(service_dir: &ServiceDir) -> Error {
    Error::usage(format!("a backup of {} is being created or restored", service_dir.name()))
        .hint("wait until it is done, or interrupt it, which leaves the service as it was")
}

/// Stops a service and waits for its end; one that doesn't run is stopped.
fn stop_one(service_dir: &ServiceDir, seconds: u32, context: &Context) -> Result<()> {
    not_copied(service_dir)?;
    let monitor = service_dir.monitor();
    match request(service_dir, &Request::Stop(seconds)) {
        Ok(_) => service_dir.wait_for_monitor(monitor).map(drop),
        // Stopped only temporarily.
        Err(error) if error.is(Cause::ServiceNotRunning) && cutover::is_locked(service_dir)? => {
            Err(at_work(service_dir))
        }
        Err(error) if error.is(Cause::ServiceNotRunning) => {
            say(context, &format!("{} is not running", service_dir.name()));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

pub(in crate::cli) fn restart(args: &RestartArgs, context: &Context) -> Result<ExitCode> {
    let (root, service_dir) = find(&args.name)?;
    if args.components.is_empty() {
        let record = service_dir.record()?;
        if record.remove && service_dir.is_running()? {
            let name = service_dir.name();
            return Err(Error::usage(format!("{name} was run with --rm and would be removed"))
                .hint("use `svp run` again, without --rm to keep the service"));
        }
        // Do not stop a service that could not start again.
        links::resolve(&root, &record)?;
        stop_one(&service_dir, args.time, context)?;
        monitor::start(&root, &service_dir, context.reporter())?;
    }
    for component in &args.components {
        restart_component(&service_dir, component, args.time)?;
    }
    name_of(&service_dir, args.format, context)?;
    finish(&[service_dir], args.format, context)
}

/// Has one component started anew, and waits until it is.
fn restart_component(service_dir: &ServiceDir, name: &str, seconds: u32) -> Result<()> {
    let look = || -> Result<Option<ComponentStatus>> {
        let status = service_dir.status()?;
        Ok(status.components.into_iter().find(|component| component.name == name))
    };
    let before = look()?;
    request(service_dir, &Request::Restart(name.to_owned(), seconds))?;
    let Some(before) = before else { return Ok(()) };
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(u64::from(seconds) + u64::from(STOP_SECONDS)) {
        let now = look()?.filter(|_| service_dir.is_running().is_ok_and(|runs| runs));
        let Some(now) = now else { break };
        let is_anew = now.restarts > before.restarts || !before.running;
        if is_anew && now.running {
            return Ok(());
        }
        interrupt::check()?;
        std::thread::sleep(LOOK);
    }
    let service = service_dir.name();
    Err(Error::new(Kind::Script, format!("the component {name} of {service} did not restart"))
        .hint(format!("`svp logs {service} {name}` shows its output")))
}

pub(in crate::cli) fn wait(args: &WaitArgs, context: &Context) -> Result<ExitCode> {
    let service_dirs = existing(&Store::default_root()?, &args.names)?;
    let mut codes = Vec::new();
    for service_dir in &service_dirs {
        let left = service_dir.wait_for_monitor(service_dir.monitor())?;
        let code = left.or(service_dir.status()?.exit_code).unwrap_or(137);
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
    let mut removed = Vec::new();
    for service_dir in existing(&root, &args.names)? {
        let name = service_dir.name();
        not_copied(&service_dir)?;
        if args.force {
            stop_one(&service_dir, STOP_SECONDS, context)?;
        }
        let Some(_lock) = service_dir.lock()? else {
            return Err(Error::usage(format!("the service {name} is running"))
                .hint(format!("use `svp stop {name}` first, or `svp rm --force {name}`")));
        };
        service_dir.wait_for_container()?;
        let sandbox = Sandbox::create(&root.join("trees"))?;
        if args.force
            && let Err(error) = service_dir.record()
            && error.kind() == Kind::BadInput
        {
            context.reporter().warning(&format!("{error}; `svp prune` removes its files"));
            service_dir.remove()?;
            name_of(&service_dir, args.format, context)?;
            removed.push(serde_json::json!({ "name": name }));
            continue;
        }
        cutover::recover_and_collect(&root, &service_dir, &sandbox)?;
        let record = service_dir.record()?;
        let users = links::dependents(&root, name)?;
        if !users.is_empty() {
            context.reporter().note(&format!(
                "linked to {name}, and can't start without it: {}",
                users.join(", ")
            ));
        }
        for volume in service::remove(&service_dir, &record, &sandbox, args.volumes)? {
            context
                .reporter()
                .note(&format!("keeping the volume {volume}: another service uses it"));
        }
        name_of(&service_dir, args.format, context)?;
        removed.push(serde_json::json!({ "name": name }));
    }
    if args.format == Format::Json {
        context.print(&table::json(&removed))?;
    }
    Ok(ExitCode::SUCCESS)
}
