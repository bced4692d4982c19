//! `svp run`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::ValueEnum;

use super::args::{EnvArg, HealthArgs, LogSize, NetworkArg, Seconds, env_file, parsed};
use super::common::Context;
use super::escape::for_terminal;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::oci::Reference;
use crate::pipeline::create_service::{CreateRequest, create_service};
use crate::progress::ServiceNote;
use crate::sandbox::{Forward, HostAccess, Memory, MilliCpus, Pids, Resources, Stream};
use crate::service::host_name::HostName;
use crate::service::link_spec::LinkSpec;
use crate::service::mount::Mount;
use crate::service::record::{LogLimits, Record, Restart};
use crate::service::service_dir::ServiceDir;
use crate::service::supervise::Hooks;
use crate::service::{health, lifecycle, monitor};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image of the instance
    #[arg(value_name = "IMAGE", value_parser = parsed::<Reference>)]
    image: Reference,
    /// The components to run [default: all]
    components: Vec<String>,
    /// Run in the background, and return once it has started
    #[arg(short, long)]
    detach: bool,
    /// With -d: wait until its ports listen or `query health` passes, at most SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60", requires = "detach", value_parser = parsed::<Seconds>)]
    wait: Option<Seconds>,
    /// The name of the service [default: the image's name]
    #[arg(long)]
    name: Option<String>,
    /// The host name [default: the one that the instance was set up under]
    #[arg(long, value_name = "NAME", value_parser = parsed::<HostName>)]
    hostname: Option<HostName>,
    /// Restart policy for components: no, on-failure[:N] or always
    #[arg(long, default_value = "no", value_parser = parsed::<Restart>)]
    restart: Restart,
    #[command(flatten)]
    health: HealthArgs,
    /// Set a variable for its scripts; NAME alone passes on svp's own value
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parsed::<EnvArg>)]
    env: Vec<EnvArg>,
    /// Set variables from FILE: a NAME=VALUE per line, values in quotes may span lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// Mount a volume or a host directory at PATH
    #[arg(short, long, value_name = "NAME|DIR:PATH[:ro]", value_parser = parsed::<Mount>)]
    volume: Vec<Mount>,
    /// Use volumes that were created for another setup, whose secrets may be others
    #[arg(long)]
    reuse_volumes: bool,
    /// Publish a port on a host address [default address: 127.0.0.1]
    #[arg(short, long, value_name = "[ADDR:]HOST:PORT", value_parser = parsed::<Forward>)]
    publish: Vec<Forward>,
    /// Network: auto is private, or what the configuration names where this host has none
    #[arg(long, value_enum, default_value = "auto")]
    network: NetworkArg,
    /// Allow access to the host's loopback (as host.containers.internal) or to the gateway
    #[arg(long, value_enum, value_name = "host|gateway")]
    allow: Vec<AllowArg>,
    /// Make another service reachable by its name or ALIAS, and pass its environment, secrets included; ALIAS also
    /// begins the variables' names
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = parsed::<LinkSpec>)]
    link: Vec<LinkSpec>,
    /// Memory limit, such as 512m or 2g; the service may use the same amount of swap in addition
    #[arg(short, long, value_name = "SIZE", value_parser = parsed::<Memory>)]
    memory: Option<Memory>,
    /// CPU limit, such as 2 or 0.5 processors
    #[arg(long, value_name = "N", value_parser = parsed::<MilliCpus>)]
    cpus: Option<MilliCpus>,
    /// Limit of processes and threads
    #[arg(long, visible_alias = "pids-limit", value_name = "N", value_parser = parsed::<Pids>)]
    pids: Option<Pids>,
    /// Run this program instead of /service/bin/run
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Remove the service when it exits; keep its volumes
    #[arg(long)]
    rm: bool,
    /// Number of log files kept for each component
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    log_files: u32,
    /// Size at which a log file is rotated, such as 16m or 1g, or a plain number of MB
    #[arg(long, value_name = "SIZE", default_value = "16", value_parser = parsed::<LogSize>)]
    log_size: LogSize,
}

/// Parts of the host that a service may be allowed to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AllowArg {
    /// Every port of the host's 127.0.0.1, at host.containers.internal
    Host,
    /// The gateway
    Gateway,
}

impl Args {
    fn request(&self) -> Result<CreateRequest> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(env_file::read(file)?);
        }
        env.extend(self.env.iter().cloned());
        let (health, on_unhealthy) = self.health.settings()?;
        Ok(CreateRequest {
            image: self.image.clone(),
            components: self.components.clone(),
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            network: self.network.into(),
            host_access: HostAccess {
                gateway: self.allow.contains(&AllowArg::Gateway),
                host: self.allow.contains(&AllowArg::Host),
            },
            publish: self.publish.clone(),
            links: self.link.clone(),
            env: EnvArg::pairs(&env),
            mounts: self.volume.clone(),
            resources: Resources {
                memory: self.memory.map(|memory| memory.0),
                milli_cpus: self.cpus.map(|cpus| cpus.0),
                pids: self.pids.map(|pids| pids.0),
            },
            reuse_volumes: self.reuse_volumes,
            restart: self.restart,
            health,
            on_unhealthy,
            entrypoint: self.entrypoint.clone(),
            remove: self.rm,
            logs: LogLimits { files: self.log_files, size: self.log_size.0 },
        })
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let request = args.request()?;
    let (service_dir, record, root) = {
        let store = context.store()?;
        let (service_dir, record) = create_service(&request, &store, context.reporter())?;
        (service_dir, record, store.root().to_owned())
    };
    let missing = lifecycle::missing_volumes(&root, &record)?;
    let started = if args.detach {
        monitor::start(&root, &service_dir, context.reporter()).map(|()| ExitCode::SUCCESS)
    } else {
        foreground(&root, &service_dir, &record, context)
    };
    // Remove a service that failed to start.
    let code =
        started.inspect_err(|_| lifecycle::discard(&root, &service_dir, &record, &missing))?;
    if !args.detach {
        return Ok(code);
    }
    if record.restart != Restart::No {
        context.reporter().note(ServiceNote::NotAtBoot { service: record.name.clone() }.into());
    }
    if let Some(Seconds(limit)) = args.wait {
        health::wait(&root, &service_dir, limit, context.reporter())?;
    }
    context.print(&format!("{}\n", record.name))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the service in this process and copies its output.
pub(super) fn foreground(
    root: &std::path::Path,
    service_dir: &ServiceDir,
    record: &Record,
    context: &Context,
) -> Result<ExitCode> {
    let signals = interrupt::signals_to_pipe()
        .map_err(|error| Error::sandbox("can't create a pipe").source(error))?;
    let console = Console::new(record);
    let mut hooks = Hooks {
        started: &mut || {},
        show: &|component, stream, lines| console.show(component, stream, lines),
        reporter: context.reporter(),
    };
    let code = monitor::run(root, service_dir, signals, &mut hooks)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Prints the components' lines on standard output and error, prefixed with the component's name if there are several.
pub(super) struct Console {
    prefixes: Vec<String>,
    lock: Mutex<()>,
}

impl Console {
    pub(super) fn new(record: &Record) -> Console {
        let names = record.component_names();
        Console { prefixes: prefixes(&names), lock: Mutex::new(()) }
    }

    fn show(&self, component: usize, stream: Stream, lines: &[u8]) {
        let _one_at_a_time = self.lock.lock();
        let prefix = &self.prefixes[component];
        // The reader may have closed its end; the log has the lines.
        let _ = match stream {
            Stream::Stdout => {
                let terminal = std::io::stdout().is_terminal();
                write_lines(&mut std::io::stdout().lock(), prefix, lines, terminal)
            }
            Stream::Stderr => {
                let terminal = std::io::stderr().is_terminal();
                write_lines(&mut std::io::stderr().lock(), prefix, lines, terminal)
            }
        };
    }
}

/// Writes lines with a prefix; escapes control characters for a terminal.
fn write_lines(
    out: &mut dyn Write,
    prefix: &str,
    lines: &[u8],
    terminal: bool,
) -> std::io::Result<()> {
    if prefix.is_empty() && !terminal {
        out.write_all(lines)?;
        return out.flush();
    }
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.write_all(prefix.as_bytes())?;
        match terminal {
            true => out.write_all(&for_terminal(line))?,
            false => out.write_all(line)?,
        }
    }
    out.flush()
}

/// Returns the prefix of each component's lines: empty if there is only one, coloured on a terminal.
pub(super) fn prefixes(names: &[String]) -> Vec<String> {
    const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
    if names.len() < 2 {
        return vec![String::new(); names.len()];
    }
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let prefix = |(n, name): (usize, &String)| match colour {
        true => format!("\x1b[{}m{name:<width$} |\x1b[0m ", COLOURS[n % COLOURS.len()]),
        false => format!("{name:<width$} | "),
    };
    names.iter().enumerate().map(prefix).collect()
}
