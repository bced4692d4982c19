//! Sources of images: `docker://REF`, `oci:DIR[:REF]`, `oci-archive:FILE[:REF]`, `docker-archive:FILE[:REF]`, or
//! the local store.
//!
//! Images are first pulled *into the store*, and used from there. Sources are not trusted: the size of manifests and
//! configs is bounded, and digest, size and diff ID of every layer are verified while it is streamed, before any part
//! of the image becomes visible.

mod as_oci;
mod docker;
mod docker_archive;
mod image_source;
pub(crate) mod layer;
mod load;
pub(crate) mod lower_links;
mod oci_archive;
mod oci_layout;
mod pull;
mod push;
mod recompress;
mod signature_policy;
mod tarball;
pub(crate) mod tee;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::oci::Reference;

pub use as_oci::as_oci;
pub use load::{Loaded, load};
pub use pull::{PullOptions, PullPolicy, pull, pull_all};
pub use push::push;
pub use recompress::recompress;
pub use signature_policy::SignaturePolicy;

/// The source of an image.
///
/// Grammar, as in skopeo:
///
/// ```text
/// source := "docker://" reference | "oci:" dir [":" ref] | "oci-archive:" file [":" ref]
///         | "docker-archive:" file [":" (reference | "@" number)] | reference
/// ```
///
/// `dir` and `file` end at the first colon; the file `-` is standard input; `ref` is the value of
/// `org.opencontainers.image.ref.name`. A plain reference names an image in the store, never one in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image in the store.
    Local(Reference),
    /// An image in a registry; the reference includes the registry.
    Docker(Reference),
    /// An image in a layout.
    Oci {
        /// The layout's directory.
        dir: PathBuf,
        /// The image's name, if the layout has several.
        reference: Option<String>,
    },
    /// An image in a tar archive of a layout.
    OciArchive {
        /// The archive.
        file: PathBuf,
        /// The image's name, if the archive has several.
        reference: Option<String>,
    },
    /// An image in an archive of `docker save`.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// The image's name, if the archive has several.
        reference: Option<String>,
    },
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("docker://") {
            return Ok(Source::Docker(rest.parse::<Reference>()?.with_default_registry()));
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (dir, reference) = path_and_ref(text, rest)?;
            return Ok(Source::Oci { dir, reference });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (file, reference) = path_and_ref(text, rest)?;
            return Ok(Source::OciArchive { file, reference });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (file, reference) = path_and_ref(text, rest)?;
            return Ok(Source::DockerArchive { file, reference });
        }
        if is_foreign(text) {
            return Err(Error::usage(format!("unsupported image source: {text:?}"))
                .hint("write docker://REF, oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF], or the name of an image in the store; skopeo copies images from other sources into an oci: layout"));
        }
        Ok(Source::Local(text.parse()?))
    }
}

impl Source {
    /// Returns the name of the image without its transport, for `org.opencontainers.image.base.name`; for an unnamed
    /// image, the name of its directory or file.
    pub fn image_name(&self) -> String {
        let (path, reference) = match self {
            Source::Local(reference) | Source::Docker(reference) => {
                return match reference.digest() {
                    Some(_) => reference.to_string(),
                    None => reference.tagged(),
                };
            }
            Source::Oci { dir, reference } => (dir, reference),
            Source::OciArchive { file, reference } | Source::DockerArchive { file, reference } => {
                (file, reference)
            }
        };
        let of_path = || path.file_name().map(|name| name.to_string_lossy().into_owned());
        reference.clone().or_else(of_path).unwrap_or_else(|| path.display().to_string())
    }
}

/// Returns whether `text` names a transport that only other tools support, so that it is not taken for an image name.
pub(crate) fn is_foreign(text: &str) -> bool {
    let transport = text.split_once(':').map(|(transport, _)| transport).unwrap_or_default();
    let foreign = ["dir", "containers-storage", "docker-daemon", "ostree", "sif", "tarball"];
    foreign.contains(&transport) || text.contains("://")
}

fn path_and_ref(whole: &str, rest: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, reference) = match rest.split_once(':') {
        Some((path, reference)) => (path, Some(reference)),
        None => (rest, None),
    };
    if path.is_empty() || reference == Some("") {
        return Err(Error::usage(format!(
            "{whole:?} lacks a path, or a reference after the colon"
        ))
        .hint("write oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]"));
    }
    Ok((path.into(), reference.map(str::to_owned)))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, reference) = match self {
            Source::Local(reference) => return reference.fmt(f),
            Source::Docker(reference) => return write!(f, "docker://{reference}"),
            Source::Oci { dir, reference } => ("oci", dir, reference),
            Source::OciArchive { file, reference } => ("oci-archive", file, reference),
            Source::DockerArchive { file, reference } => ("docker-archive", file, reference),
        };
        write!(f, "{transport}:{}", path.display())?;
        match reference {
            Some(reference) => write!(f, ":{reference}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_shows() {
        let cases = [
            ("mysql", "mysql"),
            ("team/mysql:8", "team/mysql:8"),
            ("docker://debian:12", "docker://docker.io/library/debian:12"),
            ("docker://localhost:5000/a", "docker://localhost:5000/a"),
            ("oci:out", "oci:out"),
            ("oci:/a/b:team/mysql:latest", "oci:/a/b:team/mysql:latest"),
            ("oci-archive:x.tar:1", "oci-archive:x.tar:1"),
            ("docker-archive:x.tar:a:1", "docker-archive:x.tar:a:1"),
            ("docker-archive:-", "docker-archive:-"),
        ];
        for (text, shown) in cases {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), shown);
        }
        let Source::Oci { dir, reference } = "oci:/a:b:c".parse().unwrap() else { panic!("oci") };
        assert_eq!((dir, reference), ("/a".into(), Some("b:c".to_owned())));
    }

    #[test]
    fn image_names_omit_the_transport() {
        let cases = [
            ("mysql", "mysql:latest"),
            ("docker://debian:12", "docker.io/library/debian:12"),
            ("docker://localhost:5000/a", "localhost:5000/a:latest"),
            ("oci:/a/b:team/mysql:8", "team/mysql:8"),
            ("oci:/a/debian", "debian"),
            ("oci-archive:/a/x.tar", "x.tar"),
        ];
        for (source, name) in cases {
            assert_eq!(source.parse::<Source>().unwrap().image_name(), name);
        }
    }

    #[test]
    fn refuses() {
        let cases = [
            "",
            "oci:",
            "oci::x",
            "oci:a:",
            "docker://",
            "https://x/y",
            "docker-archive:",
            "dir:x",
            "A",
        ];
        for text in cases {
            let error = text.parse::<Source>().expect_err(text);
            assert_eq!(error.kind().exit_code(), 2, "{text}");
        }
    }
}
