//! Mounts in a service: volumes and directories of the host.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::check_name;
use crate::error::{Error, Result};

/// A mount in a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The source.
    pub source: MountSource,
    /// The absolute path in the container.
    pub at: String,
    /// Whether the service may only read it.
    pub read_only: bool,
}

/// The source of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountSource {
    /// A volume, by its name.
    Volume(String),
    /// A file or directory of the host.
    Host(String),
}

/// podman's mount options. Those for SELinux, `z` and `Z`, have no effect.
const OPTIONS: [&str; 4] = ["ro", "rw", "z", "Z"];
/// The devices that svp provides in `/dev`.
const DEVICES: [&str; 12] = [
    "null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "fd", "stdin", "stdout",
    "stderr",
];

/// Parses `NAME|DIR:PATH[:ro]`. A source that begins with a slash or a dot is a directory of the host, which must
/// exist.
impl FromStr for Mount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (text, read_only) = options(text);
        let (source, at) = text.split_once(':').ok_or_else(|| {
            Error::usage(format!("invalid volume: {text:?}")).hint("write NAME:PATH or DIR:PATH")
        })?;
        Ok(Mount { source: source.parse()?, at: mount_point(at)?, read_only })
    }
}

impl FromStr for MountSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.starts_with(['/', '.']) {
            check_name(text)?;
            return Ok(MountSource::Volume(text.to_owned()));
        }
        let unusable = |error| Error::usage(format!("can't use {text}")).source(error);
        let path = std::path::absolute(text).and_then(|path| path.canonicalize());
        let path = path.map_err(unusable)?.into_os_string().into_string();
        let path = path.map_err(|_| Error::usage(format!("{text}: its path is not UTF-8")))?;
        Ok(MountSource::Host(path))
    }
}

/// Splits off mount options; returns the rest, and whether the mount is read-only.
fn options(text: &str) -> (&str, bool) {
    match text.rsplit_once(':') {
        Some((rest, options)) if options.split(',').all(|option| OPTIONS.contains(&option)) => {
            (rest, options.split(',').any(|option| option == "ro"))
        }
        _ => (text, false),
    }
}

/// Checks and normalises a path in a container: absolute, without `.` and repeated slashes.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) with the reason.
pub(crate) fn mount_point(at: &str) -> Result<String> {
    let parts: Vec<&str> = at.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if !at.starts_with('/') || parts.is_empty() || parts.contains(&"..") {
        return Err(Error::usage(format!("invalid path in a container: {at:?}"))
            .hint("write an absolute path, not the root"));
    }
    let why = match parts[..] {
        ["proc" | "sys", ..] => "the kernel provides the files there",
        ["dev"] => "it would hide the devices",
        ["dev", device, ..] if DEVICES.contains(&device) => "svp provides that device",
        ["service"] | ["service", "bin", ..] => "it would hide the pack's scripts",
        _ => return Ok(format!("/{}", parts.join("/"))),
    };
    Err(Error::usage(format!("can't mount at /{}: {why}", parts.join("/")))
        .hint("mount at another path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Mount {
        text.parse().unwrap()
    }

    #[test]
    fn mounts() {
        let full = mount("data:/var/lib/x/:ro");
        assert_eq!(full.source, MountSource::Volume("data".into()));
        assert_eq!((full.at.as_str(), full.read_only), ("/var/lib/x", true));
        let both = mount("data:/x:ro,Z");
        assert_eq!((both.at.as_str(), both.read_only), ("/x", true));
        assert!(!mount("data:/x:z").read_only);
        assert_eq!(mount("data:/with:colon").at, "/with:colon");
        assert_eq!(mount("data:/./a//b/.").at, "/a/b");
        for text in ["data:/service/data", "data:/dev/shm", "data:/process", "data:/etc"] {
            assert!(text.parse::<Mount>().is_ok(), "{text}");
        }
        assert_eq!(mount("/tmp:/x").source, MountSource::Host("/tmp".into()));
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
            "d:/.",
            "d:/./proc",
            "d:/service",
            "d:/service/.",
            "d:/./service",
            "d:/service//bin",
            "d:/service/bin/run",
            "d:/dev/null",
            "d:/dev/pts/0",
        ] {
            assert!(text.parse::<Mount>().is_err(), "{text:?}");
        }
    }
}
