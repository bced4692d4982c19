//! `svp export`: writes a service in the formats of other engines, as a person would write it by hand.
//!
//! | file | content |
//! |---|---|
//! | `kube` | Kubernetes objects, which `podman kube play` accepts too |
//! | `volumes` | Kubernetes volumes |
//! | `quadlet` | podman quadlet units |
//! | `systemd` | a unit that runs the service with svp itself |
//! | `limits` | resource limits |
//! | `names` | names that Kubernetes accepts |
//! | `objects` | parts of Kubernetes objects |
//! | `yaml`, `unit` | YAML and unit files |

mod kube;
mod limits;
mod names;
mod objects;
mod quadlet;
mod systemd;
mod unit;
mod volumes;
mod write;
pub(crate) mod yaml;

use std::path::PathBuf;

pub(crate) use write::export;

use super::mount::{Mount, MountSource};
use super::record::Record;
use super::{environment, image_config};
use crate::error::{Error, Result};
use crate::oci::{Image, Reference};
use crate::pack::query::{Port, StopSignal};
use crate::sandbox::Transport;

/// The format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Kubernetes objects.
    Kube,
    /// Units of podman's systemd generator, quadlet.
    Quadlet,
    /// A systemd unit that runs svp.
    Systemd,
}

/// Treatment of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// Write them into the format's own object for secrets.
    With,
    /// Leave them out.
    Without,
    /// Write only the secrets.
    Only,
    /// Write only the Secret, in the form that podman before 4.4 reads.
    PodmanSecret,
    /// As `With`, but with asterisks for the values, for display.
    Masked,
}

/// A request to export.
#[derive(Debug)]
pub(crate) struct Request {
    /// The format.
    pub format: Format,
    /// Treatment of secrets.
    pub secrets: Secrets,
    /// The image's name on the target, if it differs.
    pub image: Option<Reference>,
    /// Whether the service's tag names its image; else only the digest does.
    pub tagged: bool,
    /// The path of the svp executable.
    pub program: PathBuf,
    /// The root of the store, if svp doesn't find it by itself.
    pub root: Option<PathBuf>,
    /// Whether to write system units, not user units.
    pub system: bool,
}

/// The result of an export.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    /// The files, in the order of reading.
    pub files: Vec<File>,
    /// Notes and steps for the user, one sentence each.
    pub notes: Vec<String>,
}

/// A file that was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Its name.
    pub name: String,
    /// Its content.
    pub text: String,
    /// Whether it contains secrets.
    pub secret: bool,
}

/// A service, in terms common to all engines.
struct Model<'a> {
    record: &'a Record,
    /// The image's name on the target.
    image: String,
    /// Whether that name refers to a registry.
    in_registry: bool,
    /// Whether the service's tag names its image.
    tagged: bool,
    /// The name with a tag, for push commands.
    pushed: String,
    /// Whether to write system units, not user units.
    system: bool,
    /// The program to run instead of the image's entrypoint.
    entrypoint: Option<&'a str>,
    /// The working directory, if not the image's.
    cwd: Option<&'a str>,
    /// The stop signal, if it is not SIGTERM.
    stop_signal: Option<StopSignal>,
    /// Whether the image itself names that signal.
    stop_signal_in_image: bool,
    /// The ports that the service listens on.
    ports: Vec<(u16, Transport)>,
}

impl<'a> Model<'a> {
    fn new(record: &'a Record, image: &Image, request: &Request) -> Result<Model<'a>> {
        let name: Reference = match &request.image {
            Some(name) => name.clone(),
            None => record.image.parse()?,
        };
        let in_registry = name.registry().is_some_and(|registry| registry != "localhost");
        let engine_name = match name.digest() {
            // The digest alone identifies the image: not all engines accept a tag beside it.
            Some(digest) => name.at_digest(digest).to_string(),
            None => name.tagged(),
        };
        // A name without a registry is always local: an engine must not pull someone else's image of that name.
        let engine_name = match name.registry() {
            Some(_) => engine_name,
            None => format!("localhost/{engine_name}"),
        };
        let config = image.config();
        let entrypoint = record.entrypoint.first().map(String::as_str);
        let same_entrypoint = config.entrypoint() == record.entrypoint;
        let mut ports: Vec<_> = record
            .ports
            .iter()
            .chain(&record.published)
            .map(|f| (f.container, f.protocol))
            .collect();
        if ports.is_empty() {
            // The record of a service in the host's network has no ports.
            ports = image_config::ports(config)?.into_iter().map(plain_port).collect();
        }
        let stop_signal = StopSignal(record.stop_signal);
        let in_image: StopSignal =
            config.stop_signal().and_then(|text| text.parse().ok()).unwrap_or_default();
        let mut seen = std::collections::BTreeSet::new();
        ports.retain(|port| seen.insert(*port));
        Ok(Model {
            record,
            image: engine_name,
            in_registry,
            tagged: request.tagged,
            pushed: name.tagged(),
            system: request.system,
            entrypoint: entrypoint.filter(|_| !same_entrypoint),
            cwd: Some(record.cwd.as_str()).filter(|cwd| config.working_dir() != Some(cwd)),
            stop_signal: Some(stop_signal).filter(|signal| *signal != StopSignal::default()),
            stop_signal_in_image: in_image == stop_signal,
            ports,
        })
    }

    /// The variables that are not secrets, with `ip` for `%IP`.
    fn environment(&self, ip: &str) -> Vec<(String, String)> {
        let mut env = Vec::new();
        for (name, value) in self.record.env_with_ip(ip).chain(self.record.more_env.iter().cloned())
        {
            environment::set(&mut env, &name, &value);
        }
        env
    }

    /// The names of the volumes, without duplicates.
    fn volumes(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.volume_mounts() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The named volumes and their mount points.
    fn volume_mounts(&self) -> impl Iterator<Item = (&str, &Mount)> {
        self.record.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => Some((name.as_str(), mount)),
            MountSource::Host(_) => None,
        })
    }

    /// The commands that transfer the image to the target, one per line.
    fn image_commands(&self) -> Vec<String> {
        let own = &self.record.image;
        let digest = self.record.manifest.digest;
        if self.in_registry {
            let own = if self.tagged { own.clone() } else { digest.to_string() };
            return vec![format!("svp push {own} docker://{} --allow-secrets", self.pushed)];
        }
        if !self.tagged {
            // The name would transfer another image than the one that the service has.
            let archive = format!("oci-archive:-:{}", self.image);
            return vec![format!("svp copy {digest} {archive} --allow-secrets | podman load")];
        }
        let loaded = match own.parse::<Reference>() {
            Ok(name) => name.with_default_registry().tagged(),
            Err(_) => own.clone(),
        };
        let mut commands = vec![format!("svp save {own} --allow-secrets | podman load")];
        if loaded != self.image {
            commands.push(format!("podman tag {loaded} {}", self.image));
        }
        commands
    }

    /// The same commands as a note.
    fn image_note(&self) -> String {
        let commands = self.image_commands().join(" && ");
        let digest = self.record.manifest.digest;
        match self.in_registry {
            true => format!(
                "the image ({digest}) must be in its registry, which then holds the instance's secrets: {commands}"
            ),
            false => format!("the image ({digest}) must be in podman's storage: {commands}"),
        }
    }
}

/// The names of the services that a service is linked to, each once.
fn linked_services(record: &Record) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for link in &record.links {
        if !names.contains(&link.service.as_str()) {
            names.push(&link.service);
        }
    }
    names
}

fn plain_port(port: Port) -> (u16, Transport) {
    (port.number, port.protocol)
}

/// The `systemctl` command, with --user for user units.
fn systemctl(system: bool) -> &'static str {
    if system { "systemctl" } else { "systemctl --user" }
}

/// The seconds after which systemd may kill a unit that has `seconds` to stop.
fn systemd_timeout(seconds: u32) -> u32 {
    seconds.saturating_add(20)
}

/// The error for a path or a command that a format can't express.
fn unwritable(what: &str, text: &str, format: &str) -> Error {
    Error::usage(format!("{what} {text:?} can't be written for {format}"))
        .hint("run the service without it, or choose another --format")
}

/// The note about data.
fn volumes_note(name: &str) -> String {
    format!(
        "data is not exported: new volumes begin with the image's content; and files that {name} writes outside its \
         volumes last only as long as its container"
    )
}
