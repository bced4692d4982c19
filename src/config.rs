//! The configuration file: base images by operating system, and the network where there is no private one.
//!
//! ```toml
//! [os]
//! "debian/12" = "docker://registry.example.com/debian:12"
//! "ubuntu/13.04" = "oci:/srv/images/ubuntu:13.04"
//!
//! [network]
//! fallback = "host"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The configuration, and the path that it was read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    path: PathBuf,
    file: File,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    os: BTreeMap<String, String>,
    network: NetworkTable,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NetworkTable {
    fallback: Option<Fallback>,
}

/// The network of a container where this host can't create a private one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fallback {
    /// The host's.
    Host,
    /// A loopback interface only.
    None,
}

impl Config {
    /// Returns `$XDG_CONFIG_HOME/svp/config.toml`, else `~/.config/svp/config.toml`.
    pub(crate) fn default_path() -> Option<PathBuf> {
        let dir = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
        Some(dir.join("svp/config.toml"))
    }

    /// Reads the configuration; a missing file counts as empty.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if the file is invalid,
    /// [`Kind::Storage`](crate::error::Kind::Storage) if it can't be read.
    pub(crate) fn load() -> Result<Config> {
        let Some(path) = Config::default_path() else { return Ok(Config::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Config::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Config { path, file: File::default() })
            }
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    fn parse(path: PathBuf, text: &str) -> Result<Config> {
        let file = toml::from_str(text).map_err(|error| {
            Error::usage(format!("invalid configuration {}", path.display())).source(error)
        })?;
        Ok(Config { path, file })
    }

    /// Returns the image source for an operating system, given as `NAME/VERSION`.
    pub(crate) fn os(&self, os: &str) -> Option<&str> {
        self.file.os.get(os).map(String::as_str)
    }

    /// Returns the network that replaces a private one.
    pub(crate) fn network_fallback(&self) -> Option<Fallback> {
        self.file.network.fallback
    }

    /// Returns the configuration file's path, whether it exists or not.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_os_table_and_refuses_unknown_keys() {
        let parse = |text| Config::parse("/x".into(), text);
        let config = parse("[os]\n\"debian/12\" = \"oci:/a\"\n").unwrap();
        assert_eq!(config.os("debian/12"), Some("oci:/a"));
        assert_eq!(config.os("debian/11"), None);
        assert!(parse("[oss]\n").unwrap_err().to_string().contains("/x"));
        assert!(parse("os = 1").is_err());
        let fallback = |text| parse(text).map(|config| config.network_fallback());
        assert_eq!(fallback("[network]\n").unwrap(), None);
        assert_eq!(fallback("[network]\nfallback = \"host\"\n").unwrap(), Some(Fallback::Host));
        assert_eq!(fallback("network.fallback = \"none\"\n").unwrap(), Some(Fallback::None));
        assert!(fallback("[network]\nfallback = \"auto\"\n").is_err());
        assert!(fallback("[network]\nfall = \"host\"\n").is_err());
    }
}
