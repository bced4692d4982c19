//! `svp ps`, `info`, `env` and `ports NAME`.

use std::io::IsTerminal;
use std::process::ExitCode;

use serde::Serialize;

use super::super::args::{EnvFormat, environment_text};
use super::super::common::{Context, Format};
use super::super::table::{self, Table};
use super::find::find;
use super::health_text::{self, span};
use crate::error::Result;
use crate::progress::{ServiceNote, Warning};
use crate::sandbox::{Forward, HostAccess, Network, Resources, Transport};
use crate::service::health;
use crate::service::health_watch::{HealthStatus, HealthWatch};
use crate::service::link_spec::LinkSpec;
use crate::service::record::Record;
use crate::service::service_dir::ServiceDir;
use crate::service::status::{ComponentStatus, State, Status, now, shell_code};
use crate::service::tag_drift;
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PsArgs {
    /// Include stopped services
    #[arg(short, long)]
    all: bool,
    /// Print only names
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InfoArgs {
    /// The name of the service
    name: String,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct EnvArgs {
    /// The name of the service
    name: String,
    /// Print secrets even on a terminal
    #[arg(long)]
    show_secrets: bool,
    /// Output format of the environment
    #[arg(long, value_enum, default_value = "dotenv")]
    format: EnvFormat,
}

/// The printed facts about a service, without secrets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceInfo {
    name: String,
    hostname: String,
    image: String,
    digest: String,
    tag_digest: Option<String>,
    outdated: bool,
    created: i64,
    status: State,
    exit_code: Option<i32>,
    error: Option<String>,
    started: Option<i64>,
    ended: Option<i64>,
    pid: Option<u32>,
    monitor: Option<u32>,
    address: String,
    ports: Vec<ShownPort>,
    network: &'static str,
    allowed: Vec<&'static str>,
    links: Vec<LinkSpec>,
    components: Vec<ComponentStatus>,
    volumes: Vec<ShownMount>,
    resources: Resources,
    memory_kills: u64,
    restart: String,
    health: Option<String>,
    health_status: Option<HealthStatus>,
    health_watch: Option<HealthWatch>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownPort {
    host: String,
    port: u16,
    container_port: u16,
    protocol: Transport,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownMount {
    source: String,
    at: String,
    read_only: bool,
}

impl ServiceInfo {
    /// Reads the current state of a service.
    pub(super) fn of(service_dir: &ServiceDir) -> Result<ServiceInfo> {
        Ok(ServiceInfo::new(service_dir, &service_dir.record()?, service_dir.status()?))
    }

    fn new(service_dir: &ServiceDir, record: &Record, status: Status) -> ServiceInfo {
        use crate::service::mount::MountSource;
        use crate::service::record::Restart;
        let mount = |mount: &crate::service::mount::Mount| ShownMount {
            source: match &mount.source {
                MountSource::Volume(name) | MountSource::Host(name) => name.clone(),
            },
            at: mount.at.clone(),
            read_only: mount.read_only,
        };
        let health_status = health::known(service_dir, record, &status);
        let tagged = tag_drift::tagged_digest(service_dir.root(), record);
        let alive = matches!(status.state, State::Running | State::Stopping | State::Starting);
        ServiceInfo {
            name: record.name.clone(),
            hostname: record.hostname().to_owned(),
            image: record.image.clone(),
            digest: record.manifest.digest.to_string(),
            tag_digest: tagged.map(|digest| digest.to_string()),
            outdated: tag_drift::is_outdated(tagged, record),
            created: record.created,
            status: status.state,
            exit_code: status.exit_code,
            error: status.error,
            started: status.started,
            ended: status.ended,
            pid: status.init_pid.filter(|_| alive),
            monitor: status.monitor.filter(|_| alive),
            address: record.ip().to_string(),
            ports: ports(record).map(ShownPort::from).collect(),
            network: network_word(status.network.filter(|_| alive).unwrap_or(record.network)),
            allowed: host_access_words(record.host_access),
            links: record.links.clone(),
            components: status.components,
            volumes: record.mounts.iter().map(mount).collect(),
            resources: record.resources,
            memory_kills: status.memory_kills,
            restart: match record.restart {
                Restart::No => "no".into(),
                Restart::Always => "always".into(),
                Restart::OnFailure(None) => "on-failure".into(),
                Restart::OnFailure(Some(most)) => format!("on-failure:{most}"),
            },
            health: record.health.clone(),
            health_status,
            health_watch: record.health_watch,
        }
    }

    /// Formats the status for `ps`.
    fn status_text(&self) -> String {
        let since = |time: Option<i64>| {
            time.map_or(String::new(), |time| format!(" {}", span(now() - time)))
        };
        let down = self.components.iter().filter(|component| !component.running).count();
        match self.status {
            State::Running if down > 0 => {
                format!("running{}, {down} of {} down", since(self.started), self.components.len())
            }
            State::Running => format!("running{}", since(self.started)),
            State::Exited => {
                format!("exited ({}){} ago", self.exit_code.unwrap_or(0), since(self.ended))
            }
            other => other.to_string(),
        }
    }
}

impl ShownPort {
    /// Returns the suffix of a port that is not TCP, else an empty string.
    fn suffix(&self) -> &'static str {
        if self.protocol == Transport::Udp { "/udp" } else { "" }
    }
}

impl From<&Forward> for ShownPort {
    fn from(forward: &Forward) -> Self {
        ShownPort {
            host: forward.host.ip().to_string(),
            port: forward.host.port(),
            container_port: forward.container,
            protocol: forward.protocol,
        }
    }
}

fn network_word(network: Network) -> &'static str {
    match network {
        Network::Private => "private",
        Network::Host => "host",
        Network::None => "none",
    }
}

fn host_access_words(access: HostAccess) -> Vec<&'static str> {
    let words = [("gateway", access.gateway), ("host", access.host)];
    words.into_iter().filter_map(|(word, is)| is.then_some(word)).collect()
}

fn ports(record: &Record) -> impl Iterator<Item = &Forward> {
    record.ports.iter().chain(&record.published)
}

fn port_text(forward: &Forward) -> String {
    let protocol = if forward.protocol == Transport::Tcp { "tcp" } else { "udp" };
    format!("{}->{}/{protocol}", forward.host, forward.container)
}

fn resources(resources: &Resources) -> String {
    let memory = resources.memory.map(|bytes| format!("{} of memory", table::size(bytes)));
    let cpus = resources.milli_cpus.map(|milli| format!("{} processors", milli as f64 / 1000.0));
    let pids = resources.pids.map(|pids| format!("{pids} processes"));
    let parts: Vec<String> = [memory, cpus, pids].into_iter().flatten().collect();
    format!("at most {}", parts.join(", "))
}

pub(in crate::cli) fn ps(args: &PsArgs, context: &Context) -> Result<ExitCode> {
    let root = Store::default_root()?;
    let mut shown = Vec::new();
    for service_dir in ServiceDir::all(&root)? {
        let status = service_dir.status()?;
        let runs = matches!(status.state, State::Running | State::Starting | State::Stopping);
        if runs || args.all {
            // A damaged or vanishing service must not hide the others.
            match service_dir.record() {
                // A candidate of a restore.
                Ok(record) if record.candidate_for.is_some() && !args.all => {}
                Ok(record) => shown.push(ServiceInfo::new(&service_dir, &record, status)),
                Err(error) => {
                    let reason = error.to_string();
                    context.reporter().warning(Warning::ServiceUnreadable { reason });
                }
            }
        }
    }
    if args.quiet {
        context.print(&shown.iter().map(|one| format!("{}\n", one.name)).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.format == Format::Json {
        context.print(&table::json(&shown))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["NAME", "IMAGE", "STATUS", "HEALTH", "RESTARTS", "PORTS"]);
    for one in shown {
        let port = |port: &ShownPort| match port.port == port.container_port {
            true => format!("{}:{}{}", port.host, port.port, port.suffix()),
            false => {
                format!("{}:{}->{}{}", port.host, port.port, port.container_port, port.suffix())
            }
        };
        let words = one.status_text();
        let restarts: u32 = one.components.iter().map(|component| component.restarts).sum();
        let ports: Vec<String> = one.ports.iter().map(port).collect();
        let image = format!("{}{}", one.image, if one.outdated { " (outdated)" } else { "" });
        let health = health_text::short(one.health_status.as_ref(), one.health_watch.is_some());
        table.row([one.name, image, words, health, restarts.to_string(), ports.join(", ")]);
    }
    context.print(&table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn info(args: &InfoArgs, context: &Context) -> Result<ExitCode> {
    let (_, service_dir) = find(&args.name)?;
    let shown = ServiceInfo::of(&service_dir)?;
    if args.format == Format::Json {
        context.print(&table::json(&shown))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["name", &shown.name]);
    let mut row = |what: &str, text: String| table.row([what.to_owned(), text]);
    row("image", format!("{} ({})", shown.image, shown.digest));
    if let Some(tagged) = shown.tag_digest.as_ref().filter(|_| shown.outdated) {
        let name = &shown.name;
        row("outdated", format!("{} is {tagged} now; `svp upgrade {name}` takes it", shown.image));
    }
    row("status", shown.status_text());
    if let Some(error) = &shown.error {
        row("error", error.clone());
    }
    row("host name", shown.hostname.clone());
    row("network", shown.network.to_owned());
    row("address", shown.address.clone());
    for port in &shown.ports {
        row(
            "port",
            format!("{}:{} -> {}{}", port.host, port.port, port.container_port, port.suffix()),
        );
    }
    for what in &shown.allowed {
        row("may reach", (*what).to_owned());
    }
    for link in &shown.links {
        row("link", link.to_string());
    }
    for component in &shown.components {
        let end =
            component.end.map_or(String::new(), |end| format!(", last exit {}", shell_code(end)));
        let state = if component.running { "runs" } else { "is down" };
        row(
            "component",
            format!("{} {state}, restarted {} times{end}", component.name, component.restarts),
        );
    }
    for mount in &shown.volumes {
        let read_only = if mount.read_only { ", read-only" } else { "" };
        row("volume", format!("{} at {}{read_only}", mount.source, mount.at));
    }
    if !shown.resources.is_unbounded() {
        row("resources", resources(&shown.resources));
    }
    if shown.memory_kills > 0 {
        row("killed", format!("{} processes, out of memory", shown.memory_kills));
    }
    row("restart", shown.restart.clone());
    row("health", shown.health.clone().unwrap_or_else(|| "its ports listen".into()));
    if let Some(watch) = &shown.health_watch {
        row("watched", health_text::watch(watch));
    }
    if let Some(health) = &shown.health_status {
        row("state", health_text::long(health));
        for line in health.output.iter().flat_map(|output| output.lines()) {
            row("", line.to_owned());
        }
    }
    row("logs", service_dir.logs().display().to_string());
    context.print(&table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn env(args: &EnvArgs, context: &Context) -> Result<ExitCode> {
    let (_, service_dir) = find(&args.name)?;
    let record = service_dir.record()?;
    let mut environment = record.host_environment();
    if std::io::stdout().is_terminal() && !args.show_secrets && !record.secrets.is_empty() {
        for (_, value) in environment.iter_mut().take(record.secrets.len()) {
            "********".clone_into(value);
        }
        context.reporter().note(ServiceNote::SecretsHidden.into());
    }
    context.print(&environment_text(&environment, args.format)?)?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn service_ports(name: &str, format: Format, context: &Context) -> Result<()> {
    let (_, service_dir) = find(name)?;
    let record = service_dir.record()?;
    if format == Format::Json {
        let ports: Vec<ShownPort> = ports(&record).map(ShownPort::from).collect();
        return context.print(&table::json(&ports));
    }
    context.print(&ports(&record).map(|port| format!("{}\n", port_text(port))).collect::<String>())
}
