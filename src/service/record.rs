//! The record of a service: written at creation, read at each start.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Image};
use crate::pack::query::EnvVar;
use crate::sandbox::{Forward, HostAccess, Network, Resources, Transport};
use crate::secret::Secret;
use crate::service::environment;
use crate::service::health_watch::{HealthWatch, TIMEOUT};
use crate::service::link_spec::LinkSpec;
use crate::service::mount::{Mount, MountSource};

/// The version of a record's format.
pub(crate) const FORMAT: u32 = 1;

/// The seconds between the stop signal and SIGKILL, unless the pack or the user names them.
pub(crate) const STOP_SECONDS: u32 = 10;

/// A service created by `svp run`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The version of this file's format.
    pub format: u32,
    /// The name of its directory in the layer store.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its host name, if it is not the service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The image's name when the service was created.
    pub image: String,
    /// The image's manifest.
    pub manifest: Descriptor,
    /// When the service was created; seconds since 1970.
    pub created: i64,
    /// Its components, in the pack's order; empty for a service with a single unnamed process.
    pub components: Vec<String>,
    /// The program that runs a component, and its first arguments.
    pub entrypoint: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// The instance's secrets.
    pub secrets: Vec<(String, Secret)>,
    /// The random id of the setup that its secrets are from; none without secrets, or in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// Whether the user gave secrets other than those of the image's own setup.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secrets_given: bool,
    /// Whether it uses volumes that were created for another setup.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuse_volumes: bool,
    /// The pack's environment, with `%IP` unexpanded.
    pub env: Vec<(String, String)>,
    /// The services that it is linked to: it reaches them and has their environment.
    #[serde(default)]
    pub links: Vec<LinkSpec>,
    /// The user's variables.
    pub more_env: Vec<(String, String)>,
    /// A command for `/bin/sh -c` that succeeds while the service is healthy.
    pub health: Option<String>,
    /// How its health is watched while it runs, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_watch: Option<HealthWatch>,
    /// The network.
    pub network: Network,
    /// The parts of the host that a private network may reach.
    #[serde(default, rename = "allowed")]
    pub host_access: HostAccess,
    /// Its address on the host, if its network is private.
    pub address: Option<Ipv4Addr>,
    /// The ports of that address that are forwarded to it.
    pub ports: Vec<Forward>,
    /// Further ports of the host that the user publishes.
    pub published: Vec<Forward>,
    /// Volumes and directories of the host.
    pub mounts: Vec<Mount>,
    /// Its resource limits.
    #[serde(default)]
    pub resources: Resources,
    /// The restart policy.
    pub restart: Restart,
    /// The stop signal.
    pub stop_signal: i32,
    /// The seconds between the stop signal and SIGKILL, if the pack names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_seconds: Option<u32>,
    /// Whether it is removed when it has ended.
    pub remove: bool,
    /// How much of each component's output is kept.
    pub logs: LogLimits,
    /// The service being restored, if this is a fresh copy of it.
    #[serde(default, rename = "stands_for", skip_serializing_if = "Option::is_none")]
    pub candidate_for: Option<String>,
}

/// The restart policy of the components.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Restart {
    /// Never restart.
    #[default]
    No,
    /// Restart after a failure, at most this many times in a row.
    OnFailure(Option<u32>),
    /// Always restart.
    Always,
}

/// How much of a component's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLimits {
    /// The number of files, including the one being written.
    pub files: u32,
    /// The size at which a file is rotated; bytes.
    pub size: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { files: 3, size: 16 << 20 }
    }
}

impl std::str::FromStr for Restart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let count = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0);
        match text.split_once(':') {
            None if text == "no" => Ok(Restart::No),
            None if text == "always" => Ok(Restart::Always),
            None if text == "on-failure" => Ok(Restart::OnFailure(None)),
            Some(("on-failure", most)) if count(most).is_some() => {
                Ok(Restart::OnFailure(count(most)))
            }
            _ => Err(Error::usage(format!("invalid restart policy: {text:?}"))
                .hint("write no, on-failure, on-failure:N or always")),
        }
    }
}

impl Record {
    /// The seconds between the stop signal and SIGKILL.
    pub(crate) fn stop_seconds(&self) -> u32 {
        self.stop_seconds.unwrap_or(STOP_SECONDS)
    }

    /// The host name that the service sees.
    pub(crate) fn hostname(&self) -> &str {
        self.hostname.as_ref().or(self.candidate_for.as_ref()).unwrap_or(&self.name)
    }

    /// The time limit of its health command.
    pub(crate) fn health_timeout(&self) -> Duration {
        let seconds = self.health_watch.map_or(TIMEOUT, |watch| watch.timeout);
        Duration::from_secs(seconds.into())
    }

    /// The names of its components for display: the service's own name if its single process is unnamed.
    pub(crate) fn component_names(&self) -> Vec<String> {
        if self.components.is_empty() { vec![self.name.clone()] } else { self.components.clone() }
    }

    /// The names of the volumes that are mounted in it.
    pub(crate) fn volume_names(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => Some(name.as_str()),
            MountSource::Host(_) => None,
        })
    }

    /// The command of each component, in the same order.
    pub(crate) fn commands(&self) -> Vec<Vec<String>> {
        if self.components.is_empty() {
            return vec![self.entrypoint.clone()];
        }
        let command = |name: &String| [self.entrypoint.clone(), vec![name.clone()]].concat();
        self.components.iter().map(command).collect()
    }

    /// The address that replaces `%IP`, both on the host and in the service.
    pub(crate) fn ip(&self) -> IpAddr {
        IpAddr::V4(self.address.unwrap_or(Ipv4Addr::LOCALHOST))
    }

    /// Returns the environment for clients: the secrets, then the pack's variables with `ip` for `%IP`.
    pub(crate) fn client_environment(&self, ip: &str) -> Vec<(String, String)> {
        let secrets =
            self.secrets.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned()));
        secrets.chain(self.env_with_ip(ip)).collect()
    }

    /// Returns the environment for clients on the host: a port that has another number there appears under that
    /// number, in `PORT`, in `*_PORT` and after `%IP:`.
    pub(crate) fn host_environment(&self) -> Vec<(String, String)> {
        let mut here = self.clone();
        let moved = |forward: &&Forward| forward.host.port() != forward.container;
        for forward in self.ports.iter().filter(moved) {
            let (inside, outside) =
                (forward.container.to_string(), forward.host.port().to_string());
            for ((name, value), (_, was)) in here.env.iter_mut().zip(&self.env) {
                let port = name == "PORT" || name.ends_with("_PORT");
                if port && *was == inside && forward.protocol == Transport::Tcp {
                    value.clone_from(&outside);
                } else if was.contains("%IP:") {
                    *value = renumbered(value, &inside, &outside);
                }
            }
        }
        here.client_environment(&self.ip().to_string())
    }

    /// The pack's environment with `ip` for `%IP`.
    pub(crate) fn env_with_ip(&self, ip: &str) -> impl Iterator<Item = (String, String)> {
        self.env.iter().map(move |(name, value)| {
            let variable = EnvVar { name: name.clone(), value: value.clone() };
            (name.clone(), variable.with_ip(ip))
        })
    }

    /// Returns the environment of every script in the service: the image's, that of the services it is
    /// linked to, its own, and the user's.
    ///
    /// # Errors
    /// Those of [`environment::of_image`].
    pub(crate) fn environment(
        &self,
        image: &Image,
        links: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>> {
        let mut env = environment::of_image(image)?;
        for (name, value) in links {
            environment::set(&mut env, &name, &value);
        }
        let own = self.client_environment(&self.ip().to_string());
        for (name, value) in own.iter().chain(&self.more_env) {
            environment::set(&mut env, name, value);
        }
        Ok(env)
    }
}

/// Replaces the port number `inside` by `outside` after `%IP:`.
fn renumbered(text: &str, inside: &str, outside: &str) -> String {
    let mut parts = text.split("%IP:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let number = if &part[..end] == inside { outside } else { &part[..end] };
        out.push_str(&format!("%IP:{number}{}", &part[end..]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        let good = [
            ("no", Restart::No),
            ("always", Restart::Always),
            ("on-failure", Restart::OnFailure(None)),
            ("on-failure:3", Restart::OnFailure(Some(3))),
        ];
        for (text, policy) in good {
            assert_eq!(text.parse::<Restart>().unwrap(), policy);
        }
        for text in ["", "yes", "always:3", "on-failure:", "on-failure:0", "on-failure:x", "no:1"] {
            assert!(text.parse::<Restart>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ports_after_an_address_are_renumbered() {
        let of = |text: &str| renumbered(text, "80", "8080");
        assert_eq!(of("http://%IP:80/a,%IP:800,%IP:80"), "http://%IP:8080/a,%IP:800,%IP:8080");
        assert_eq!(of("80 %IP"), "80 %IP");
    }
}
