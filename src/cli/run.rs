//! `svp run`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use clap::ValueEnum;

use super::args::{env_argument, parsed, parsed_by};
use super::common::Context;
use crate::error::{Error, IoContext, Result};
use crate::interrupt;
use crate::oci::Reference;
use crate::pipeline::create_service::{CreateRequest, create_service, parse_publish};
use crate::sandbox::{
    Forward, HostAccess, Network, Resources, Stream, parse_cpus, parse_memory, parse_pids,
};
use crate::service::record::{LogLimits, Mount, MountSource, Record, Restart};
use crate::service::service_dir::ServiceDir;
use crate::service::supervise::Hooks;
use crate::service::{health, monitor};

/// Default time limit of `--wait`, in seconds.
const WAIT: u64 = 60;

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
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, requires = "detach", value_parser = seconds)]
    wait: Option<Option<u64>>,
    /// The name of the service [default: the image's name]
    #[arg(long)]
    name: Option<String>,
    /// Restart policy for components: no, on-failure[:N] or always
    #[arg(long, default_value = "no", value_parser = parsed::<Restart>)]
    restart: Restart,
    /// Set a variable for its scripts; NAME alone passes on svp's own value
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = env_argument)]
    env: Vec<(String, String)>,
    /// Set variables from FILE, one NAME=VALUE per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// Mount a volume or a host directory at PATH
    #[arg(short, long, value_name = "NAME|DIR:PATH[:ro]", value_parser = parse_mount)]
    volume: Vec<Mount>,
    /// Publish a port on a host address [default address: 127.0.0.1]
    #[arg(short, long, value_name = "[ADDR:]HOST:PORT", value_parser = parsed_by(parse_publish))]
    publish: Vec<Forward>,
    /// Network: auto is private where pasta can run, else the host's
    #[arg(long, value_enum, default_value = "auto")]
    network: NetworkArg,
    /// Allow access to the host's loopback (as host.containers.internal) or to the gateway
    #[arg(long, value_enum, value_name = "host|gateway")]
    allow: Vec<AllowArg>,
    /// Make another service reachable, and pass its environment, secrets included
    #[arg(long, value_name = "NAME")]
    link: Vec<String>,
    /// Memory limit, such as 512m or 2g; the same amount of swap comes on top
    #[arg(short, long, value_name = "SIZE", value_parser = parsed_by(parse_memory))]
    memory: Option<u64>,
    /// CPU limit, such as 2 or 0.5 processors
    #[arg(long, value_name = "N", value_parser = parsed_by(parse_cpus))]
    cpus: Option<u64>,
    /// Limit of processes and threads
    #[arg(long, visible_alias = "pids-limit", value_name = "N", value_parser = parsed_by(parse_pids))]
    pids: Option<u64>,
    /// Run this program instead of /service/bin/run
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Remove the service when it exits; keep its volumes
    #[arg(long)]
    rm: bool,
    /// Number of log files kept for each component
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    log_files: u32,
    /// Size at which a log file is rotated, in MB
    #[arg(long, value_name = "MB", default_value = "16", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    log_size: u64,
}

/// The network given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NetworkArg {
    /// Private where pasta can run, else the host's
    Auto,
    /// The host's
    Host,
    /// Only a loopback interface
    None,
}

/// Parts of the host that a service may be allowed to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AllowArg {
    /// Every port of the host's 127.0.0.1, at host.containers.internal
    Host,
    /// The gateway
    Gateway,
}

/// Reads `60` or `60s`.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    digits.parse().map_err(|_| format!("invalid number of seconds: {text}"))
}

/// Parses mount options as podman has them; returns whether the mount is read-only. SELinux options have no effect.
fn mount_options(text: &str) -> (&str, bool) {
    match text.rsplit_once(':') {
        Some((rest, options))
            if options.split(',').all(|o| ["ro", "rw", "z", "Z"].contains(&o)) =>
        {
            (rest, options.split(',').any(|option| option == "ro"))
        }
        _ => (text, false),
    }
}

fn parse_mount(text: &str) -> Result<Mount, String> {
    let (text, read_only) = mount_options(text);
    let (source, at) = text.split_once(':').ok_or("write NAME:PATH or DIR:PATH")?;
    if !at.starts_with('/')
        || at.trim_matches('/').is_empty()
        || at.split('/').any(|part| part == "..")
    {
        return Err(format!(
            "{at:?} is no place in a container: write an absolute path, not the root"
        ));
    }
    let at = format!("/{}", at.trim_matches('/'));
    let kernels = ["/proc", "/sys"].iter().any(|dir| std::path::Path::new(&at).starts_with(dir));
    if kernels || ["/dev", "/service", "/service/bin"].contains(&at.as_str()) {
        return Err(format!("{at} is reserved in a container: mount at another path"));
    }
    let source = if source.starts_with(['/', '.']) {
        let path = std::path::absolute(source).map_err(|error| error.to_string())?;
        let path = path.canonicalize().map_err(|error| format!("{source}: {error}"))?;
        MountSource::Host(
            path.into_os_string().into_string().map_err(|_| "a path that is not UTF-8")?,
        )
    } else {
        crate::service::record::check_name(source).map_err(|error| error.to_string())?;
        MountSource::Volume(source.to_owned())
    };
    Ok(Mount { source, at, read_only })
}

/// Parses `NAME=VALUE` lines, skipping empty lines and comments (`#`).
pub(super) fn env_file(path: &std::path::Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path).io("read", path)?;
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        out.push(env_argument(line).map_err(|why| {
            Error::usage(format!("{}, line {}: {why}", path.display(), number + 1))
        })?);
    }
    Ok(out)
}

impl Args {
    fn request(&self) -> Result<CreateRequest> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(env_file(file)?);
        }
        env.extend(self.env.iter().cloned());
        Ok(CreateRequest {
            image: self.image.clone(),
            components: self.components.clone(),
            name: self.name.clone(),
            network: match self.network {
                NetworkArg::Auto => Network::Private,
                NetworkArg::Host => Network::Host,
                NetworkArg::None => Network::None,
            },
            host_access: HostAccess {
                gateway: self.allow.contains(&AllowArg::Gateway),
                host: self.allow.contains(&AllowArg::Host),
            },
            publish: self.publish.clone(),
            links: self.link.clone(),
            env,
            mounts: self.volume.clone(),
            resources: Resources { memory: self.memory, milli_cpus: self.cpus, pids: self.pids },
            restart: self.restart,
            entrypoint: self.entrypoint.clone(),
            remove: self.rm,
            logs: LogLimits { files: self.log_files, size: self.log_size * 1_000_000 },
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
    let started = if args.detach {
        monitor::start(&root, &service_dir, context.reporter()).map(|()| ExitCode::SUCCESS)
    } else {
        foreground(&root, &service_dir, &record, context)
    };
    let code = started.inspect_err(|_| {
        // What never ran leaves nothing.
        if service_dir.status().is_ok_and(|status| !status.ran()) {
            super::services::discard(&root, &service_dir, &record);
        }
    })?;
    if !args.detach {
        return Ok(code);
    }
    if record.restart != Restart::No {
        context.reporter().note(
            "it is started again as long as this machine runs; \
             `svp export --format quadlet` makes a unit that starts it at boot",
        );
    }
    if let Some(limit) = args.wait {
        health::wait(&root, &service_dir, Duration::from_secs(limit.unwrap_or(WAIT)))?;
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
        .map_err(|error| Error::sandbox("can't make a pipe").source(error))?;
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
        // Who reads them may be gone: the log has them.
        let _ = match stream {
            Stream::Stdout => {
                write_lines(&mut std::io::stdout().lock(), &self.prefixes[component], lines)
            }
            Stream::Stderr => {
                write_lines(&mut std::io::stderr().lock(), &self.prefixes[component], lines)
            }
        };
    }
}

fn write_lines(out: &mut dyn Write, prefix: &str, lines: &[u8]) -> std::io::Result<()> {
    if prefix.is_empty() {
        out.write_all(lines)?;
    } else {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            out.write_all(prefix.as_bytes())?;
            out.write_all(line)?;
        }
    }
    out.flush()
}

/// The prefix of each component's lines: empty if there is only one, coloured on a terminal.
pub(super) fn prefixes(names: &[String]) -> Vec<String> {
    use std::io::IsTerminal;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let mount = parse_mount("data:/var/lib/x/:ro").unwrap();
        assert_eq!(mount.source, MountSource::Volume("data".into()));
        assert_eq!((mount.at.as_str(), mount.read_only), ("/var/lib/x", true));
        let mount = parse_mount("data:/x:ro,Z").unwrap();
        assert_eq!((mount.at.as_str(), mount.read_only), ("/x", true));
        assert!(!parse_mount("data:/x:z").unwrap().read_only);
        assert_eq!(parse_mount("data:/with:colon").unwrap().at, "/with:colon");
        assert_eq!(parse_mount("/tmp:/x").unwrap().source, MountSource::Host("/tmp".into()));
        for text in [
            "",
            "data",
            "data:x",
            "data:/",
            "a/b:/x",
            "/nowhere-at-all:/x",
            "d:/a/../b",
            "d:/proc",
            "d:/sys/x",
            "d:/dev/",
            "d:/service",
            "d:/service/bin",
        ] {
            assert!(parse_mount(text).is_err(), "{text:?}");
        }
    }
}
