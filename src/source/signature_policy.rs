//! policy.json: decides which images may be pulled (containers-policy.json(5)).
//!
//! `reject` and `insecureAcceptAnything` are honoured. svp can't verify signatures: it refuses an image for which the
//! policy requires one, unless the user waives that; then it warns once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Source;
use crate::error::{Error, IoContext, Result};
use crate::oci::Reference;
use crate::progress::{Reporter, Warning};
use crate::registry::{SYSTEM, user_directories};
use crate::shell_words::quote;

const NAME: &str = "policy.json";
/// The maximum size of a policy, in bytes.
const LARGEST: u64 = 4 << 20;

/// The policy file, if any.
#[derive(Clone, Debug, Default)]
pub struct SignaturePolicy {
    path: Option<PathBuf>,
    /// Whether images are accepted whose signature the policy requires.
    allow_unverified: bool,
    /// Whether the warning about unverified signatures has been issued.
    warned: Arc<AtomicBool>,
}

impl SignaturePolicy {
    /// Uses `named` if given; else the first existing file of `$XDG_CONFIG_HOME/containers/policy.json`,
    /// `~/.config/containers/policy.json` and `/etc/containers/policy.json`.
    pub fn from_env(named: Option<PathBuf>) -> Self {
        let places = user_directories().into_iter().chain([SYSTEM.into()]);
        let found = || places.map(|dir| dir.join(NAME)).find(|path| path.exists());
        SignaturePolicy { path: named.or_else(found), ..SignaturePolicy::default() }
    }

    /// Accepts images whose signature the policy requires, with a warning, if `allow`.
    pub fn allow_unverified(self, allow: bool) -> Self {
        SignaturePolicy { allow_unverified: allow, ..self }
    }

    /// Checks that the policy allows pulling the image `source`.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the policy rejects the image, requires its signature, or is
    /// invalid;
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the policy can't be read.
    pub(super) fn check(&self, source: &Source, reporter: &dyn Reporter) -> Result<()> {
        let (Some(path), Some((transport, scopes))) = (&self.path, scopes(source)) else {
            return Ok(());
        };
        let policy = read(path)?;
        let (scope, requirements) = policy.find(transport, &scopes);
        if requirements.contains(&Requirement::Reject) {
            return Err(Error::bad_input(format!(
                "{source} is rejected by the policy {}",
                path.display()
            ))
            .hint(format!("{scope} rejects it; use --policy FILE for another policy")));
        }
        if !requirements.contains(&Requirement::Signed) {
            return Ok(());
        }
        let policy = path.display().to_string();
        if !self.allow_unverified {
            return Err(Error::bad_input(format!(
                "the policy {policy} requires a signature of {source}, which svp can't verify: {scope} says so"
            ))
            .hint(format!(
                "skopeo verifies it: {} makes a layout for svp, if the policy accepts layouts; or accept it unverified \
                 with --allow-unverified, or use another policy with --policy FILE",
                skopeo_copy(source)
            )));
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            reporter.warning(Warning::NotVerified { policy, source: source.to_string() });
        }
        Ok(())
    }
}

/// Returns the command that copies a source into a layout, once skopeo has verified it.
fn skopeo_copy(source: &Source) -> String {
    format!("`skopeo copy {} oci:DIR:NAME`", quote(&source.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    default: Requirements,
    #[serde(default = "Unique::empty")]
    transports: Unique<Unique<Requirements>>,
}

#[derive(Deserialize)]
#[serde(try_from = "Vec<Requirement>")]
struct Requirements(Vec<Requirement>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Unique<Value>")]
enum Requirement {
    Accept,
    Reject,
    Signed,
}

/// A JSON object without duplicate keys, which would be ambiguous.
struct Unique<T>(BTreeMap<String, T>);

impl<T> Unique<T> {
    fn empty() -> Self {
        Unique(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<T>, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if found.contains_key(&name) {
                        return Err(A::Error::custom(format!("duplicate key {name:?}")));
                    }
                    found.insert(name, value);
                }
                Ok(Unique(found))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

impl TryFrom<Vec<Requirement>> for Requirements {
    type Error = &'static str;

    fn try_from(list: Vec<Requirement>) -> Result<Self, &'static str> {
        if list.is_empty() {
            Err("a list of requirements is empty")
        } else {
            Ok(Requirements(list))
        }
    }
}

impl TryFrom<Unique<Value>> for Requirement {
    type Error = String;

    fn try_from(Unique(fields): Unique<Value>) -> Result<Self, String> {
        let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
        let found = match kind {
            "insecureAcceptAnything" => Requirement::Accept,
            "reject" => Requirement::Reject,
            // Ignore their other fields, which only a verifier needs.
            "signedBy" | "sigstoreSigned" | "signedBaseLayer" => return Ok(Requirement::Signed),
            other => return Err(format!("unknown type of requirement: {other:?}")),
        };
        if fields.len() == 1 { Ok(found) } else { Err(format!("{kind} allows no other fields")) }
    }
}

impl Policy {
    fn check(&self) -> Result<(), String> {
        for (transport, scopes) in &self.transports.0 {
            for scope in scopes.0.keys().filter(|scope| !scope.is_empty()) {
                let fine = match transport.as_str() {
                    "docker-archive" => false,
                    "oci" | "oci-archive" | "dir" => scope.len() > 1 && scope.starts_with('/'),
                    _ => true,
                };
                if !fine {
                    return Err(format!("invalid scope for the transport {transport}: {scope:?}"));
                }
            }
        }
        Ok(())
    }

    /// Returns the requirements of the first matching scope, and a description of the scope.
    fn find(&self, transport: &str, scopes: &[String]) -> (String, &[Requirement]) {
        if let Some(known) = self.transports.0.get(transport) {
            for scope in scopes.iter().map(String::as_str).chain([""]) {
                if let Some(requirements) = known.0.get(scope) {
                    let called = match scope {
                        "" => format!("its default for the transport {transport}"),
                        scope => format!("its scope {scope}"),
                    };
                    return (called, &requirements.0);
                }
            }
        }
        ("its default".to_owned(), &self.default.0)
    }
}

fn read(path: &Path) -> Result<Policy> {
    let size = fs::metadata(path).io("read the policy", path)?.len();
    if size > LARGEST {
        return Err(Error::bad_input(format!("the policy {} is too large", path.display())));
    }
    let text = fs::read(path).io("read the policy", path)?;
    parse(&text).map_err(|why| {
        Error::bad_input(format!("the policy {} is invalid: {why}", path.display()))
            .hint("containers-policy.json(5) describes the format; --policy FILE selects another")
    })
}

fn parse(text: &[u8]) -> Result<Policy, String> {
    let policy: Policy = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    policy.check()?;
    Ok(policy)
}

/// Returns the transport of a source and its scopes, the narrowest first; `None` for an image in the store, which was
/// checked when it was pulled.
fn scopes(source: &Source) -> Option<(&'static str, Vec<String>)> {
    Some(match source {
        Source::Local(_) => return None,
        Source::Docker(reference) => ("docker", scopes_of_name(reference)),
        Source::Oci { dir, reference } => ("oci", scopes_of_path(dir, reference.as_deref())),
        Source::OciArchive { file, reference } => {
            ("oci-archive", scopes_of_path(file, reference.as_deref()))
        }
        Source::DockerArchive { .. } => ("docker-archive", Vec::new()),
    })
}

/// Returns the image, its repository, the namespaces above, the host, and the host's parent domains.
fn scopes_of_name(reference: &Reference) -> Vec<String> {
    let reference = reference.clone().with_default_registry();
    let name = reference.name();
    let mut scopes = Vec::new();
    if let Some(digest) = reference.digest() {
        scopes.push(format!("{name}@{digest}"));
    }
    if reference.digest().is_none() || reference.tag().is_some() {
        scopes.push(reference.tagged());
    }
    let mut rest = name.as_str();
    scopes.push(rest.to_owned());
    while let Some((above, _)) = rest.rsplit_once('/') {
        scopes.push(above.to_owned());
        rest = above;
    }
    let mut domain = rest.split(':').next().unwrap_or(rest);
    while let Some((_, above)) = domain.split_once('.') {
        scopes.push(format!("*.{above}"));
        domain = above;
    }
    scopes
}

/// Returns the image in `path`, `path` itself, and the directories above it except the root.
fn scopes_of_path(path: &Path, reference: Option<&str>) -> Vec<String> {
    // Standard input has no path, and opening a missing file fails later.
    let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
    let named = reference.map(|reference| format!("{}:{reference}", path.display()));
    let above = path.ancestors().filter(|path| path.parent().is_some());
    named.into_iter().chain(above.map(|path| path.display().to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_decides() {
        let policy = r#"{
            "default": [{"type": "reject"}],
            "transports": {
                "docker": {
                    "docker.io/library": [{"type": "insecureAcceptAnything"}],
                    "docker.io/library/bad": [{"type": "reject"}],
                    "docker.io/library/bad:good": [{"type": "insecureAcceptAnything"}],
                    "*.example.com": [{"type": "insecureAcceptAnything"}],
                    "*.b.example.com": [{"type": "reject"}],
                    "r.example:5000": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}],
                    "r.example:5000/both": [{"type": "sigstoreSigned"}, {"type": "reject"}]
                },
                "oci": {"": [{"type": "insecureAcceptAnything"}], "/proc": [{"type": "reject"}]},
                "atomic": {"": [{"type": "insecureAcceptAnything"}]},
                "unheard-of": {"x": [{"type": "reject"}]}
            }
        }"#;
        let policy = parse(policy.as_bytes()).unwrap();
        let cases = [
            ("docker://debian", "accept"),
            ("docker://docker.io/library/bad", "reject"),
            ("docker://bad:good", "accept"),
            ("docker://team/x", "reject"),
            ("docker://a.example.com/x", "accept"),
            ("docker://a.example.com:5000/x", "accept"),
            ("docker://a.b.example.com/x", "reject"),
            ("docker://example.com/x", "reject"),
            ("docker://r.example:5000/x/y:1", "signed"),
            ("docker://r.example:5000/both/y", "reject"),
            ("docker://r.example/x", "reject"),
            ("oci:/usr", "accept"),
            ("oci:/proc/sys:x", "reject"),
            ("oci:/usr/../proc", "reject"),
            ("oci-archive:/usr", "reject"),
            ("docker-archive:-", "reject"),
        ];
        for (text, expected) in cases {
            let (transport, scopes) = scopes(&text.parse().unwrap()).unwrap();
            let (_, requirements) = policy.find(transport, &scopes);
            let found = match requirements {
                all if all.contains(&Requirement::Reject) => "reject",
                all if all.contains(&Requirement::Signed) => "signed",
                _ => "accept",
            };
            assert_eq!(found, expected, "{text}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let both = scopes_of_name(&format!("r.example/a:1@{digest}").parse().unwrap());
        assert_eq!(
            both[..3],
            [format!("r.example/a@{digest}"), "r.example/a:1".into(), "r.example/a".into()]
        );
    }

    #[test]
    fn malformed_policies_are_refused() {
        let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
        let bad = [
            "".to_owned(),
            "{}".into(),
            "[]".into(),
            r#"{"transports":{}}"#.into(),
            r#"{"default":[]}"#.into(),
            r#"{"default":[{"type":"accept"}]}"#.into(),
            r#"{"default":[{}]}"#.into(),
            r#"{"default":[{"type":"reject","why":"x"}]}"#.into(),
            r#"{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}"#.into(),
            format!(r#"{{"default":{accept},"default":{accept}}}"#),
            format!(r#"{{"default":{accept},"other":1}}"#),
            format!(
                r#"{{"default":{accept},"transports":{{"docker":{{"a":{accept},"a":{accept}}}}}}}"#
            ),
            format!(r#"{{"default":{accept},"transports":{{"docker":{{}},"docker":{{}}}}}}"#),
            format!(r#"{{"default":{accept},"transports":{{"oci":{{"x":{accept}}}}}}}"#),
            format!(r#"{{"default":{accept},"transports":{{"oci":{{"/":{accept}}}}}}}"#),
            format!(
                r#"{{"default":{accept},"transports":{{"docker-archive":{{"/x":{accept}}}}}}}"#
            ),
        ];
        for text in bad {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(format!(r#"{{"default":{accept}}}"#).as_bytes()).is_ok());
    }
}
