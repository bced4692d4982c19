//! Edits an image's config: labels, entrypoint, ports, volumes, on top of the base's.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::oci::config::timestamp;
use crate::oci::{Digest, Image, Reference};
use crate::pack::{Answers, Pack};
use crate::service::host_name::{HostName, LABEL_HOSTNAME};

/// The label for the phase of `bin/build` that created the image.
pub(crate) const LABEL_PHASE: &str = "dev.servicepack.phase";
/// The label for the content digest of the pack in the image.
pub(super) const LABEL_PACK: &str = "dev.servicepack.pack";

/// A phase of `bin/build`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The image of a service type, without secrets.
    Base,
    /// The image of one instance.
    Setup,
    /// Both at once.
    All,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Base => "base",
            Phase::Setup => "setup",
            Phase::All => "all",
        })
    }
}

impl FromStr for Phase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "base" => Ok(Phase::Base),
            "setup" => Ok(Phase::Setup),
            "all" => Ok(Phase::All),
            _ => Err(Error::bad_input(format!("invalid build phase: {text:?}"))),
        }
    }
}

/// The metadata that svp writes into an image's config.
pub(super) struct ImageMetadata<'a> {
    pub(super) phase: Phase,
    pub(super) answers: &'a Answers,
    pub(super) reference: &'a Reference,
    /// The pack on the host, for its revision; `None` keeps the image's.
    pub(super) pack: Option<&'a Pack>,
    pub(super) pack_digest: Option<Digest>,
    /// Seconds since 1970.
    pub(super) created: i64,
    /// The base image: its name, and its manifest's digest.
    pub(super) base: (String, Digest),
    /// The host name that the user has chosen for the instance.
    pub(super) hostname: Option<&'a HostName>,
}

/// Edits an image's config: entrypoint, working directory, environment, ports, volumes, stop signal and labels.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if the time is out of range.
pub(super) fn configure(image: &mut Image, metadata: &ImageMetadata<'_>) -> Result<()> {
    let answers = metadata.answers;
    let created = timestamp(metadata.created)?;
    let config = image.config_mut();
    config.set_created(&created);
    config.set_entrypoint(&["/service/bin/run"]);
    config.set_working_dir("/service");
    config.clear_user();
    for variable in answers.env.iter().filter(|variable| !variable.needs_ip()) {
        config.set_env(&variable.name, &variable.value);
    }
    for port in answers.exposed_ports() {
        config.add_exposed_port(&port.to_string());
    }
    for volume in &answers.volumes {
        config.add_volume(volume);
    }
    // For other engines. Without an answer, the base's own StopSignal stays.
    if let Some(stop) = answers.stop {
        config.set_stop_signal(&stop.signal.to_string());
    }
    let (base_name, base_digest) = &metadata.base;
    let base_digest = base_digest.to_string();
    // The whole name: no two instances may have the same config, whose digest identifies their state.
    let title = metadata.reference.name();
    for (name, value) in [
        ("created", created.as_str()),
        ("title", &title),
        ("version", metadata.reference.tag_or_latest()),
        ("base.name", base_name),
        ("base.digest", &base_digest),
    ] {
        config.set_label(&format!("org.opencontainers.image.{name}"), value);
    }
    if let Some(pack) = metadata.pack {
        const REVISION: &str = "org.opencontainers.image.revision";
        match pack.revision() {
            Some(revision) => config.set_label(REVISION, &revision),
            // The base's own revision does not describe this image.
            None => config.remove_label(REVISION),
        }
    }
    if let Some(digest) = metadata.pack_digest {
        config.set_label(LABEL_PACK, &digest.to_string());
    }
    for (name, value) in [
        ("version", answers.version.to_string()),
        ("os", answers.os.to_string()),
        ("components", answers.components.join(" ")),
        ("secrets", answers.secrets.join(" ")),
    ] {
        config.set_label(&format!("dev.servicepack.{name}"), &value);
    }
    match metadata.hostname {
        Some(name) => config.set_label(LABEL_HOSTNAME, name.as_str()),
        None => config.remove_label(LABEL_HOSTNAME),
    }
    config.set_label(LABEL_PHASE, &metadata.phase.to_string());
    Ok(())
}

/// SOURCE_DATE_EPOCH if it is set, else the current time; seconds since 1970.
pub(super) fn creation_time(source_date_epoch: Option<i64>) -> i64 {
    source_date_epoch.unwrap_or_else(|| jiff::Timestamp::now().as_second())
}
