//! Platforms: the operating system and processor of an image (image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An operating system, a processor architecture as Go names it, and its variant.
///
/// Grammar: `os "/" architecture ["/" variant]`, each `[A-Za-z0-9_.-]+`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// GOOS, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `v7` for `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Returns the native platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "loongarch64" => ("loong64", None),
            "mips64" if cfg!(target_endian = "little") => ("mips64le", None),
            other => (other, None),
        };
        Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Ranks an image for `offered` when `self` is requested: lower is better, `None` if it can't run.
    ///
    /// A missing variant equals the architecture's first one (`amd64/v1`, `arm64/v8`). `arm` processors also run older
    /// variants.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let wanted = self.variant_or_first();
        let found = offered.variant_or_first();
        if wanted == found {
            return Some(0);
        }
        let level = |v: &str| v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
        let newer = match (level(wanted), level(found)) {
            (Some(wanted), Some(found)) => wanted.checked_sub(found)?,
            _ => return None,
        };
        matches!(self.architecture.as_str(), "arm" | "amd64").then_some(newer)
    }

    /// Returns whether this is `unknown/unknown`, the platform of attestations and other non-images.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    fn variant_or_first(&self) -> &str {
        match (self.variant.as_deref().unwrap_or_default(), self.architecture.as_str()) {
            ("", "amd64") => "v1",
            ("", "arm64") => "v8",
            ("", "arm") => "v7",
            (variant, _) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let part_ok = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(part_ok) {
            return Err(Error::usage(format!("invalid platform: {text:?}"))
                .hint("write it as OS/ARCH[/VARIANT], for example linux/arm64 or linux/arm/v7"));
        }
        // Accept the names of uname too, as docker and podman do.
        let architecture = match parts[1] {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Platform {
            os: parts[0].to_owned(),
            architecture: architecture.to_owned(),
            variant: parts.get(2).map(|&v| v.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let cases = [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm64", "linux/arm", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/riscv64", "linux/riscv64", Some(0)),
        ];
        for (wanted, offered, rank) in cases {
            let [w, o]: [Platform; 2] = [wanted, offered].map(|p| p.parse().unwrap());
            assert_eq!(w.rank(&o), rank, "{wanted} of {offered}");
        }
    }

    #[test]
    fn parses_and_refuses() {
        assert_eq!("linux/x86_64".parse::<Platform>().unwrap().to_string(), "linux/amd64");
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_host_runs_its_own_images() {
        assert_eq!(Platform::host().rank(&Platform::host()), Some(0));
    }
}
