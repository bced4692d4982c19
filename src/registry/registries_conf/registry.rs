//! A `[[registry]]` of registries.conf.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::oci::Reference;

/// A `[[registry]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Registry {
    pub(super) prefix: String,
    /// The replacement of the prefix; `None` if names are not rewritten.
    pub(super) location: Option<String>,
    pub(in crate::registry) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
    /// The file that defines it.
    pub(super) file: PathBuf,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) used: Use,
}

/// The requests that a mirror is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    All,
    Digests,
    Tags,
}

impl Registry {
    /// Returns the rest of `name` after the prefix; `None` if `name` does not start with it.
    pub(super) fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let (host, rest) = name.split_at(name.find(['/', '@']).unwrap_or(name.len()));
            let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
            // The dot is part of the domain.
            return bare.ends_with(domain).then_some(rest);
        }
        let rest = name.strip_prefix(&self.prefix)?;
        // After a host, a colon starts a port, which makes it another registry.
        let of_repository = self.prefix.contains('/');
        let separated = rest.is_empty()
            || rest.starts_with('/')
            || (of_repository && rest.starts_with([':', '@']));
        separated.then_some(rest)
    }

    /// Returns `name` with the prefix replaced by `location`.
    pub(super) fn rewritten(&self, name: &str, location: Option<&str>) -> Result<Reference> {
        let text = match (location, self.rest(name)) {
            (Some(location), Some(rest)) => format!("{location}{rest}"),
            _ => name.to_owned(),
        };
        let bad = |error: Error| {
            Error::bad_input(format!(
                "{} rewrites {name} to {text:?}, which is not an image name",
                self.file.display()
            ))
            .source(error)
        };
        text.parse::<Reference>().map(Reference::with_default_registry).map_err(bad)
    }

    pub(super) fn refusal(&self, name: &str) -> Error {
        Error::registry(format!("{name} is blocked by {}", self.file.display()))
            .hint(format!("its [[registry]] {} has `blocked = true`", self.prefix))
    }
}
