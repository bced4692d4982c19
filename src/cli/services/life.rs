//! `svp start`, `stop`, `restart`, `wait` and `rm`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::super::common::{Context, Format};
use super::super::run::{foreground, seconds};
use super::super::table;
use super::show::Shown;
use super::{find, say};
use crate::error::{Cause, Error, Kind, Result};
use crate::interrupt;
use crate::sandbox::Sandbox;
use crate::service::backup::swap;
use crate::service::control::{Ask, ask};
use crate::service::place::Place;
use crate::service::status::{ComponentStatus, Standing};
use crate::service::supervise::STOP_SECONDS;
use crate::service::{self, health, links, monitor};
use crate::store::Store;

/// How often to look whether a component has started.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StartArgs {
    /// The services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Show its output, and stop it on Ctrl-C
    #[arg(short, long)]
    attach: bool,
    /// Wait until its ports listen or `query health` passes, so many seconds at most
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, value_parser = seconds)]
    wait: Option<Option<u64>>,
    /// The form of what is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StopArgs {
    /// The services
    #[arg(required_unless_present = "all", value_name = "NAME")]
    names: Vec<String>,
    /// All services that run
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// How many seconds to wait before it is stopped by force
    #[arg(short, long, value_name = "SECONDS", default_value_t = STOP_SECONDS)]
    time: u32,
    /// The form of what is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RestartArgs {
    /// The service
    name: String,
    /// The components to start anew; the others go on
    components: Vec<String>,
    /// How many seconds to wait before it is stopped by force
    #[arg(short, long, value_name = "SECONDS", default_value_t = STOP_SECONDS)]
    time: u32,
    /// The form of what is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct WaitArgs {
    /// The services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The form of what is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RemoveArgs {
    /// The services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Stop them first
    #[arg(short, long)]
    force: bool,
    /// Remove their volumes too, with all data in them
    #[arg(long)]
    volumes: bool,
    /// The form of what is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(in crate::cli) fn start(args: &StartArgs, context: &Context) -> Result<ExitCode> {
    if args.attach {
        let [name] = &args.names[..] else {
            return Err(Error::usage("--attach takes one service"));
        };
        let (root, place) = find(name)?;
        return foreground(&root, &place, &place.record()?, context);
    }
    let root = Store::default_root()?;
    let places = existing(&root, &args.names)?;
    for place in &places {
        not_copied(place)?;
        monitor::start(&root, place, context.reporter())?;
        if let Some(limit) = args.wait {
            health::wait(&root, place, Duration::from_secs(limit.unwrap_or(60)))?;
        }
        name_of(place, args.format, context)?;
    }
    finish(&places, args.format, context)
}

/// Says which service a thing was done to, at once; as JSON all come together, at the end.
fn name_of(place: &Place, format: Format, context: &Context) -> Result<()> {
    match format {
        Format::Table => context.print(&format!("{}\n", place.name())),
        Format::Json => Ok(()),
    }
}

fn finish(places: &[Place], format: Format, context: &Context) -> Result<ExitCode> {
    if format == Format::Json {
        let shown = places.iter().map(Shown::of).collect::<Result<Vec<_>>>()?;
        context.print(&table::json(&shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn stop(args: &StopArgs, context: &Context) -> Result<ExitCode> {
    let root = Store::default_root()?;
    let mut places: Vec<Place> = if args.all {
        let all = Place::all(&root)?.into_iter();
        let runs = |place: &Place| place.status().is_ok_and(|s| s.standing == Standing::Running);
        all.filter(|place| runs(place) || swap::is_copied(place).unwrap_or(false)).collect()
    } else {
        existing(&root, &args.names)?
    };
    for place in &places {
        stop_one(place, args.time, context)?;
        name_of(place, args.format, context)?;
    }
    // One that was run with --rm is there no more.
    places.retain(|place| Place::existing(&root, place.name()).is_ok());
    finish(&places, args.format, context)
}

/// Refuses to touch a service that is stopped for a backup's copy: it is started again whatever is done to it.
fn not_copied(place: &Place) -> Result<()> {
    if swap::is_copied(place)? { Err(at_work(place)) } else { Ok(()) }
}

fn at_work(place: &Place) -> Error {
    Error::usage(format!("a backup of {} is being made or restored", place.name()))
        .hint("wait until that is done, or interrupt it: then it is as it was before")
}

/// Stops a service and waits for its end; one that doesn't run is stopped.
fn stop_one(place: &Place, seconds: u32, context: &Context) -> Result<()> {
    not_copied(place)?;
    let monitor = place.monitor();
    match ask(place, &Ask::Stop(seconds)) {
        Ok(_) => place.wait(monitor).map(drop),
        // It is stopped only for the moment.
        Err(error) if error.is(Cause::ServiceNotRunning) && swap::is_at_work(place)? => {
            Err(at_work(place))
        }
        Err(error) if error.is(Cause::ServiceNotRunning) => {
            say(context, &format!("{} does not run", place.name()));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

pub(in crate::cli) fn restart(args: &RestartArgs, context: &Context) -> Result<ExitCode> {
    let (root, place) = find(&args.name)?;
    if args.components.is_empty() {
        let record = place.record()?;
        if record.remove && place.runs()? {
            let name = place.name();
            return Err(Error::usage(format!("{name} would be removed: it was run with --rm"))
                .hint("`svp run` it again, without --rm if it is to be kept"));
        }
        // What couldn't start again is not stopped.
        links::linked(&root, &record)?;
        stop_one(&place, args.time, context)?;
        monitor::start(&root, &place, context.reporter())?;
    }
    for component in &args.components {
        restart_component(&place, component, args.time)?;
    }
    name_of(&place, args.format, context)?;
    finish(&[place], args.format, context)
}

/// Has one component started anew, and waits until it is.
fn restart_component(place: &Place, name: &str, seconds: u32) -> Result<()> {
    let look = || -> Result<Option<ComponentStatus>> {
        let status = place.status()?;
        Ok(status.components.into_iter().find(|component| component.name == name))
    };
    let before = look()?;
    ask(place, &Ask::Restart(name.to_owned(), seconds))?;
    let Some(before) = before else { return Ok(()) };
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(u64::from(seconds) + u64::from(STOP_SECONDS)) {
        let now = look()?.filter(|_| place.runs().is_ok_and(|runs| runs));
        let Some(now) = now else { break };
        let is_anew = now.restarts > before.restarts || !before.running;
        if is_anew && now.running {
            return Ok(());
        }
        interrupt::check()?;
        std::thread::sleep(LOOK);
    }
    let service = place.name();
    Err(Error::new(
        Kind::Script,
        format!("the component {name} of {service} has not started again"),
    )
    .hint(format!("`svp logs {service} {name}` tells what it said")))
}

pub(in crate::cli) fn wait(args: &WaitArgs, context: &Context) -> Result<ExitCode> {
    let places = existing(&Store::default_root()?, &args.names)?;
    let mut codes = Vec::new();
    for place in &places {
        let left = place.wait(place.monitor())?;
        let code = left.or(place.status()?.exit_code).unwrap_or(137);
        if args.format == Format::Table {
            context.print(&format!("{code}\n"))?;
        }
        codes.push(serde_json::json!({ "name": place.name(), "exitCode": code }));
    }
    if args.format == Format::Json {
        context.print(&table::json(&codes))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The places of services, all of which exist: a wrong name is told before anything is done.
fn existing(root: &Path, names: &[String]) -> Result<Vec<Place>> {
    names.iter().map(|name| Place::existing(root, name)).collect()
}

pub(in crate::cli) fn remove(args: &RemoveArgs, context: &Context) -> Result<ExitCode> {
    let root = Store::default_root()?;
    let mut removed = Vec::new();
    for place in existing(&root, &args.names)? {
        let name = place.name();
        not_copied(&place)?;
        if args.force {
            stop_one(&place, STOP_SECONDS, context)?;
        }
        let Some(_held) = place.hold()? else {
            return Err(Error::usage(format!("the service {name} runs"))
                .hint(format!("`svp stop {name}` stops it, `svp rm --force {name}` does both")));
        };
        place.wait_for_container()?;
        let sandbox = Sandbox::enter(&root.join("trees"))?;
        if args.force
            && let Err(error) = place.record()
            && error.kind() == Kind::BadInput
        {
            context
                .reporter()
                .warning(&format!("{error}: `svp prune` removes what it has written"));
            place.remove()?;
            name_of(&place, args.format, context)?;
            removed.push(serde_json::json!({ "name": name }));
            continue;
        }
        swap::tidy(&root, &place, &sandbox)?;
        let record = place.record()?;
        let users = links::linked_to(&root, name)?;
        if !users.is_empty() {
            context.reporter().note(&format!(
                "linked to {name}, and can't start without it: {}",
                users.join(", ")
            ));
        }
        for volume in service::remove(&place, &record, &sandbox, args.volumes)? {
            context
                .reporter()
                .note(&format!("the volume {volume} stays: another service has it too"));
        }
        name_of(&place, args.format, context)?;
        removed.push(serde_json::json!({ "name": name }));
    }
    if args.format == Format::Json {
        context.print(&table::json(&removed))?;
    }
    Ok(ExitCode::SUCCESS)
}
