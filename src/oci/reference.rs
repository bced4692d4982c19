//! Image references: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::error::{Error, Result};

/// A parsed reference.
///
/// Grammar (distribution's `reference` package, and distribution-spec's `<name>` and `<reference>`):
///
/// ```text
/// reference  := [registry "/"] repository [":" tag] ["@" digest]
/// registry   := (domain | IPv4 | "[" IPv6 "]") [":" port], with a "." or ":" in it, or "localhost"
/// repository := component *("/" component)
/// component  := [a-z0-9]+ ((separator) [a-z0-9]+)*       separator := "." | "_" | "__" | "-"+
/// tag        := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
/// ```
///
/// A reference without a registry host is *local*: it names an image in the store, never one in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the digest, if the reference is only a digest: `sha256:HEX`, as commands print it, parses as a tag of
    /// the repository `sha256`.
    pub fn as_digest(&self) -> Option<Digest> {
        let alone = self.name() == "sha256" && self.digest().is_none();
        alone.then(|| self.tagged().parse().ok()).flatten()
    }

    /// Returns the first hexadecimal digits of a digest, if the reference may be a digest or a short one: `sha256:HEX`
    /// or `HEX`, of at least four digits, as git and podman take them. A tag of that name takes precedence.
    pub fn digest_prefix(&self) -> Option<&str> {
        let hex = match (&self.registry, &self.digest, self.repository.as_str(), &self.tag) {
            (None, None, "sha256", Some(tag)) => tag,
            (None, None, repository, None) => repository,
            _ => return None,
        };
        let digits = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (digits && (4..=64).contains(&hex.len())).then_some(hex)
    }

    /// Returns the registry's host and port, if any.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// Returns the repository, without the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag as written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest as written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the tag, by default `latest`.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// Returns `[REGISTRY/]REPOSITORY`.
    pub fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => self.repository.clone(),
        }
    }

    /// Returns `[REGISTRY/]REPOSITORY:TAG`, with an explicit `:latest` and without the digest: the key of the store's
    /// tags and the value of `org.opencontainers.image.ref.name`.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.name(), self.tag_or_latest())
    }

    /// Completes the name with a registry, as `docker://` does: without one it means Docker Hub, where official
    /// images are below `library/`.
    #[must_use]
    pub fn with_default_registry(mut self) -> Self {
        if matches!(self.registry.as_deref(), None | Some("index.docker.io")) {
            self.registry = Some("docker.io".to_owned());
        }
        if self.registry.as_deref() == Some("docker.io") && !self.repository.contains('/') {
            self.repository = format!("library/{}", self.repository);
        }
        self
    }

    /// Shortens a name on Docker Hub by `docker.io/` and `library/`: archives use full names for images that are
    /// local to svp.
    #[must_use]
    pub fn without_default_registry(mut self) -> Self {
        if self.registry.as_deref() == Some("docker.io") {
            self.registry = None;
            if let Some(short) = self.repository.strip_prefix("library/")
                && !short.contains('/')
            {
                self.repository = short.to_owned();
            }
        }
        self
    }

    /// Returns the store's tag for a reference by digest: `NAME:sha256-HEX`; `None` without a digest.
    pub fn tag_of_digest(&self) -> Option<Self> {
        let tag = Some(format!("sha256-{}", self.digest?.hex()));
        Some(Reference { tag, digest: None, ..self.clone() })
    }

    /// Returns the reference with the digest instead of a tag.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if ["docker://", "oci:", "oci-archive:"].iter().any(|source| text.starts_with(source)) {
            return Err(Error::usage(format!("{text:?} is an image source, not a name")).hint(
                "use a name in the store, [REGISTRY/]REPOSITORY[:TAG]; \
                 sources are for `svp build --base` and `svp unpack`",
            ));
        }
        // Keep a mistyped password out of messages.
        if let Some((_, place)) = text.rsplit_once('@').filter(|(_, place)| place.contains('/')) {
            return Err(Error::usage(format!(
                "a reference can't contain a user, such as before {place:?}"
            ))
            .hint("log in with `svp login`, and omit the user"));
        }
        parse(text).map_err(|why| {
            Error::usage(format!("invalid image reference {text:?}: {why}"))
                .hint("write it as [REGISTRY/]REPOSITORY[:TAG], for example mysql or localhost:5000/team/mysql:8")
        })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => {
            (rest, Some(digest.parse::<Digest>().map_err(|error| error.to_string())?))
        }
    };
    let (registry, path) = match rest.split_once('/') {
        Some((host, path)) if is_registry(host) => {
            check_registry(host)?;
            (Some(host.to_owned()), path)
        }
        _ => (None, rest),
    };
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => {
            check_tag(tag)?;
            (repository, Some(tag.to_owned()))
        }
        _ => (path, None),
    };
    check_repository(repository)?;
    if repository.len() + registry.as_ref().map_or(0, String::len) > 255 {
        return Err("the name is longer than 255 characters".into());
    }
    Ok(Reference { registry, repository: repository.to_owned(), tag, digest })
}

/// Returns whether the first component is a registry: by Docker's rule, if it can't be a repository's.
fn is_registry(host: &str) -> bool {
    host == "localhost" || host.contains(['.', ':', '['])
}

fn check_registry(host: &str) -> Result<(), String> {
    let bad = || format!("invalid registry {host:?}: use HOST[:PORT]");
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or_else(bad)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
        match after {
            "" => (None, None),
            _ => (None, Some(after.strip_prefix(':').ok_or_else(bad)?)),
        }
    } else {
        match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        }
    };
    if let Some(name) = name {
        let label_ok = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !name.split('.').all(label_ok) {
            return Err(bad());
        }
    }
    match port {
        Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() => {
            Err(bad())
        }
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.is_empty() {
        return Err("the repository name is missing".into());
    }
    for component in repository.split('/') {
        check_component(component).map_err(|why| format!("{component:?} {why}"))?;
    }
    Ok(())
}

fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("is empty: a name has no leading, trailing or double '/'");
    }
    if component.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("has capital letters: a repository name is lower case");
    }
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !component.bytes().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-')) {
        return Err("may have only a-z, 0-9, '.', '_' and '-'");
    }
    let separators = component.split(|c: char| c.is_ascii_alphanumeric()).filter(|s| !s.is_empty());
    let bytes = component.as_bytes();
    if !alnum(bytes[0]) || !alnum(bytes[bytes.len() - 1]) {
        return Err("must start and end with a letter or digit");
    }
    for separator in separators {
        if !matches!(separator, "." | "_" | "__") && !separator.bytes().all(|b| b == b'-') {
            return Err("may separate letters and digits with one '.', one or two '_', or '-'s");
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), String> {
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let ok = !tag.is_empty()
        && tag.len() <= 128
        && first(tag.as_bytes()[0])
        && tag.bytes().all(|b| first(b) || matches!(b, b'.' | b'-'));
    if ok {
        Ok(())
    } else {
        Err(format!(
            "invalid tag {tag:?}: use up to 128 letters, digits, '_', '.', '-', not starting with '.' or '-'"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let d = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let cases: &[(&str, Option<&str>, &str, Option<&str>, bool)] = &[
            ("mysql", None, "mysql", None, false),
            ("mysql:8", None, "mysql", Some("8"), false),
            ("team/mysql:8.0-a_B", None, "team/mysql", Some("8.0-a_B"), false),
            ("localhost/mysql", Some("localhost"), "mysql", None, false),
            ("localhost:5000/a/b:c", Some("localhost:5000"), "a/b", Some("c"), false),
            ("127.0.0.1:5000/a", Some("127.0.0.1:5000"), "a", None, false),
            ("[::1]:5000/a:1", Some("[::1]:5000"), "a", Some("1"), false),
            ("docker.io/library/debian", Some("docker.io"), "library/debian", None, false),
            ("Example.COM/a", Some("Example.COM"), "a", None, false),
            (&format!("a/b@{d}"), None, "a/b", None, true),
            (&format!("a/b:t@{d}"), None, "a/b", Some("t"), true),
            ("a__b/c--d/e.f", None, "a__b/c--d/e.f", None, false),
        ];
        for (text, registry, repository, tag, digest) in cases {
            let r: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (r.registry(), r.repository(), r.tag(), r.digest().is_some()),
                (*registry, *repository, *tag, *digest),
                "{text}"
            );
            assert_eq!(r.to_string(), *text);
        }
    }

    #[test]
    fn digests_and_short_ones_are_recognised() {
        let prefix = |text: &str| {
            let reference: Reference = text.parse().unwrap();
            reference.digest_prefix().map(str::to_owned)
        };
        let whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let cases = [
            (format!("sha256:{whole}"), Some(whole)),
            (whole.to_owned(), Some(whole)),
            ("sha256:ba78".into(), Some("ba78")),
            ("ba7816bf8f01".into(), Some("ba7816bf8f01")),
            ("sha256:ba7".into(), None),
            ("abc".into(), None),
            ("abcd:1".into(), None),
            ("sha256:latest".into(), None),
            ("team/abcd".into(), None),
            ("localhost/abcd".into(), None),
            (format!("{whole}0"), None),
            (format!("abcd@sha256:{whole}"), None),
        ];
        for (text, hex) in cases {
            assert_eq!(prefix(&text).as_deref(), hex, "{text}");
        }
    }

    #[test]
    fn refuses() {
        let long = format!("a:{}", "t".repeat(129));
        let cases = [
            "",
            ":tag",
            "A",
            "a:",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a:-x",
            "a:.x",
            "a@sha256:00",
            "a@",
            "[::1:5000/a",
            "host.x:port/a",
            "host.x:99999/a",
            "-a.b/c",
            "a..b",
            "a___b",
            "_a",
            "a_",
            "ä",
            "a:ä",
            "a\0b",
            "../a",
            "a/../b",
            "http://x/y",
            &long,
        ];
        for text in cases {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_never_in_the_message() {
        for text in ["user:hunter2@host:5000/a:1", "user:hunter2@x@host/a"] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains("\"host"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn docker_hub_is_the_default_registry_of_docker_sources() {
        let full = |text: &str| text.parse::<Reference>().unwrap().with_default_registry().tagged();
        assert_eq!(full("debian:12"), "docker.io/library/debian:12");
        assert_eq!(full("team/x"), "docker.io/team/x:latest");
        assert_eq!(full("docker.io/debian"), "docker.io/library/debian:latest");
        assert_eq!(full("localhost:1/x"), "localhost:1/x:latest");
    }
}
