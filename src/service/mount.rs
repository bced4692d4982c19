//! Mounts in a service: volumes and directories of the host.

use std::path::Path;
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
/// Directories that svp itself mounts in a container.
const OWN: [&str; 3] = ["/dev", "/service", "/service/bin"];
/// Mount points of kernel file systems.
const KERNEL: [&str; 2] = ["/proc", "/sys"];

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

/// Checks and normalises the path in the container.
fn mount_point(at: &str) -> Result<String> {
    let is_root = at.trim_matches('/').is_empty();
    if !at.starts_with('/') || is_root || at.split('/').any(|part| part == "..") {
        return Err(Error::usage(format!("invalid path in a container: {at:?}"))
            .hint("write an absolute path, not the root"));
    }
    let at = format!("/{}", at.trim_matches('/'));
    let kernels = KERNEL.iter().any(|dir| Path::new(&at).starts_with(dir));
    if kernels || OWN.contains(&at.as_str()) {
        return Err(
            Error::usage(format!("{at} is reserved in a container")).hint("mount at another path")
        );
    }
    Ok(at)
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
            "d:/service",
            "d:/service/bin",
        ] {
            assert!(text.parse::<Mount>().is_err(), "{text:?}");
        }
    }
}
