//! Parses and checks one file in the format of containers-registries.conf(5), version 2.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::registry::{Mirror, Registry, Use};
use crate::error::{Error, IoContext, Result};
use crate::oci::Reference;

/// The maximum size of a file, in bytes.
const LARGEST: u64 = 4 << 20;

/// The settings that svp uses. Unknown keys are ignored, among them those of short names.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Text {
    registry: Vec<Spanned<Table>>,
    #[serde(rename = "credential-helpers")]
    helpers: Option<Vec<String>>,
    registries: Option<Spanned<Version1>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<MirrorTable>,
    mirror_by_digest_only: bool,
    pull_from_mirror: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: Names,
    insecure: Names,
    block: Names,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Names {
    registries: Vec<String>,
}

/// The settings of one file.
#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    /// At most one for each prefix: the first wins.
    pub(super) registries: Vec<Registry>,
    pub(super) helpers: Option<Vec<String>>,
}

/// Reads a file; `None` if it is missing.
pub(super) fn read(path: &Path) -> Result<Option<ParsedFile>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.io("read", path)?,
    };
    let mut text = String::new();
    match file.take(LARGEST + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= LARGEST => parse(path, &text).map(Some),
        Ok(_) => Err(Error::bad_input(format!("{} is too large", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(Error::bad_input(format!("{} is not UTF-8", path.display())))
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// Parses the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<ParsedFile> {
    let at = |start: usize, why: &str| {
        let line = text.as_bytes()[..start.min(text.len())].iter().filter(|b| **b == b'\n').count();
        Error::bad_input(format!("{}, line {}: {why}", path.display(), line + 1))
            .hint("containers-registries.conf(5) describes the format, as for podman and skopeo")
    };
    let file: Text = toml::from_str(text)
        .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message()))?;
    if let Some(old) = &file.registries {
        let Version1 { search, insecure, block } = old.get_ref();
        if [search, insecure, block].iter().any(|names| !names.registries.is_empty()) {
            return Err(at(
                old.span().start,
                "this is version 1 of the format, which svp does not read",
            )
            .hint("write a [[registry]] with location and insecure or blocked for each registry"));
        }
    }
    let mut said = ParsedFile { registries: Vec::new(), helpers: file.helpers };
    for table in file.registry {
        let start = table.span().start;
        let registry = table.into_inner().checked(path).map_err(|why| at(start, &why))?;
        if said.registries.iter().all(|known| known.prefix != registry.prefix) {
            said.registries.push(registry);
        }
    }
    Ok(said)
}

impl Table {
    fn checked(self, path: &Path) -> Result<Registry, String> {
        let location = checked_location(&self.location)?;
        let prefix = match checked_prefix(&self.prefix)? {
            prefix if prefix.is_empty() => location.clone(),
            prefix => prefix,
        };
        if prefix.is_empty() {
            return Err("a [[registry]] needs a prefix or a location".into());
        }
        if location.is_empty() && !prefix.starts_with("*.") {
            return Err(format!("the [[registry]] {prefix} has no location"));
        }
        if !self.pull_from_mirror.is_empty() {
            return Err("pull-from-mirror is for a [[registry.mirror]]".into());
        }
        let by_digest = self.mirror_by_digest_only;
        let mirrors = self.mirror.into_iter().map(|mirror| mirror.checked(&prefix, by_digest));
        Ok(Registry {
            mirrors: mirrors.collect::<Result<_, _>>()?,
            location: (!location.is_empty()).then_some(location),
            prefix,
            insecure: self.insecure,
            blocked: self.blocked,
            file: path.to_owned(),
        })
    }
}

impl MirrorTable {
    fn checked(self, prefix: &str, by_digest: bool) -> Result<Mirror, String> {
        let location = checked_location(&self.location)?;
        if location.is_empty() {
            return Err(format!("a mirror of {prefix} has no location"));
        }
        let used = match self.pull_from_mirror.as_str() {
            "" if by_digest => Use::Digests,
            "" => Use::All,
            _ if by_digest => {
                return Err(format!(
                    "{prefix} sets mirror-by-digest-only, and its mirror {location} sets pull-from-mirror: use only one of them"
                ));
            }
            "all" => Use::All,
            "digest-only" => Use::Digests,
            "tag-only" => Use::Tags,
            other => {
                return Err(format!(
                    "pull-from-mirror must be all, digest-only or tag-only, not {other:?}"
                ));
            }
        };
        Ok(Mirror { location, insecure: self.insecure, used })
    }
}

fn checked_prefix(text: &str) -> Result<String, String> {
    let Some(domain) = text.strip_prefix("*.") else { return checked_location(text) };
    if domain.contains(['/', ':', '@', '*']) {
        return Err(format!("the prefix {text:?} is not of the form *.example.com"));
    }
    // A domain may be a single label, such as `*.internal`, which is not valid as a registry's host.
    checked_location(&format!("x.{domain}")).map(|_| text.to_owned())
}

/// Checks that `text` is empty or `HOST[:PORT][/PATH]`; returns it without trailing slashes.
fn checked_location(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    if text.contains("://") {
        return Err(format!("{text:?} is a URL; a location is written as HOST[:PORT][/PATH]"));
    }
    // Accept everything that can precede a repository's name, or that is the full name of one.
    let host = text.split('/').next();
    let names =
        |name: &str| name.parse::<Reference>().is_ok_and(|reference| reference.registry() == host);
    if text.is_empty() || names(&format!("{text}/x")) || names(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not HOST[:PORT][/PATH] of a registry"))
}
