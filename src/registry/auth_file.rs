//! The file that podman, skopeo and docker keep logins in (containers-auth.json(5), docker's config.json).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::credential_helper;
use super::credentials::{Login, Password};
use crate::error::{Error, IoContext, Result};

/// The maximum size of an auth file, in bytes.
pub(super) const LARGEST_FILE: u64 = 4 << 20;

/// Returns the login for `registry` from a credential helper, and its origin.
pub(super) fn from_helper(
    name: &str,
    registry: &str,
    may_be_missing: bool,
) -> Result<Option<(Login, String)>> {
    let found = credential_helper::get(name, server_name(registry), may_be_missing)?;
    Ok(found.map(|login| (login, format!("docker-credential-{name}"))))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthFile {
    #[serde(deserialize_with = "without_nulls")]
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers", deserialize_with = "without_nulls")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Password>,
    username: Option<String>,
    password: Option<Password>,
    identitytoken: Option<Password>,
    registrytoken: Option<Password>,
}

/// Reads a map that may be null, and whose values may be: Go's tools write a missing map as null.
fn without_nulls<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    let map: Option<BTreeMap<String, Option<T>>> = Option::deserialize(deserializer)?;
    let entries = map.unwrap_or_default().into_iter();
    Ok(entries.filter_map(|(key, value)| Some((key, value?))).collect())
}

/// Reads an auth file; `None` if it is missing, which is an error only if it is `required`.
pub(super) fn read(path: &Path, required: bool) -> Result<Option<AuthFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        Err(error) => {
            return Err(Error::io("read the auth file", path, error)
                .hint("check the file that --authfile or REGISTRY_AUTH_FILE names"));
        }
    };
    let mut text = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut text).io("read the auth file", path)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(Error::bad_input(format!("the auth file {} is too large", path.display())));
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Some(AuthFile::default()));
    }
    let parsed: Result<Option<AuthFile>, _> = serde_json::from_slice(&text);
    parsed.map(|file| Some(file.unwrap_or_default())).map_err(|error| {
        // serde's message may quote secrets: report only the position.
        let (line, column) = (error.line(), error.column());
        Error::bad_input(format!(
            "can't parse the auth file {} (line {line}, column {column})",
            path.display()
        ))
        .hint("write it with `podman login`, `skopeo login` or `docker login`")
    })
}

impl AuthFile {
    /// Returns the credential helper for this registry (`credHelpers`).
    pub(super) fn own_helper(&self, registry: &str) -> Option<&str> {
        self.own_helpers().find(|(key, _)| key == registry).map(|(_, name)| name)
    }

    /// Returns the registries in `credHelpers`, each with its credential helper.
    pub(super) fn own_helpers(&self) -> impl Iterator<Item = (String, &str)> {
        // An empty name stands for the file.
        let named = self.helpers.iter().filter(|(_, name)| !name.is_empty());
        named.map(|(key, name)| (canonical(key), name.as_str()))
    }

    /// Returns the credential helper for all other registries (`credsStore`).
    pub(super) fn store(&self) -> Option<&str> {
        self.store.as_deref().filter(|name| !name.is_empty())
    }

    pub(super) fn find(
        &self,
        path: &Path,
        registry: &str,
        repository: &str,
    ) -> Result<Option<(Login, String)>> {
        if let Some(name) = self.own_helper(registry)
            && let Some(found) = from_helper(name, registry, false)?
        {
            return Ok(Some(found));
        }
        for candidate in candidates(registry, repository) {
            let entries = self.auths.iter().filter(|(key, _)| canonical(key) == candidate);
            for (key, entry) in entries {
                let login = entry.login().map_err(|why| {
                    Error::bad_input(format!("{}: entry {key:?} {why}", path.display()))
                })?;
                if let Some(login) = login {
                    return Ok(Some((login, path.display().to_string())));
                }
            }
        }
        match self.store() {
            // Docker Desktop leaves its credsStore entry behind when it is uninstalled.
            Some(name) => from_helper(name, registry, true),
            None => Ok(None),
        }
    }
}

impl Entry {
    /// Returns the login; `None` for the empty entries that docker writes when a credential store has the login.
    fn login(&self) -> Result<Option<Login>, &'static str> {
        if let Some(token) = self.identitytoken.clone().filter(|t| !t.reveal().is_empty()) {
            return Ok(Some(Login::IdentityToken(token)));
        }
        if let Some(token) = self.registrytoken.clone().filter(|t| !t.reveal().is_empty()) {
            return Ok(Some(Login::RegistryToken(token)));
        }
        if let (Some(username), Some(password)) = (&self.username, &self.password)
            && !username.is_empty()
        {
            return Ok(Some(Login::Basic {
                username: username.clone(),
                password: password.clone(),
            }));
        }
        let Some(auth) = self.auth.as_ref().filter(|a| !a.reveal().is_empty()) else {
            return Ok(None);
        };
        let bad = "does not hold base64 of USER:PASSWORD";
        let decoded = BASE64_STANDARD.decode(auth.reveal().trim()).map_err(|_| bad)?;
        let decoded = String::from_utf8(decoded).map_err(|_| bad)?;
        let (username, password) = decoded.split_once(':').ok_or(bad)?;
        // Old docker padded the password with NULs.
        let password = Password::new(password.trim_end_matches('\0'));
        Ok(Some(Login::Basic { username: username.to_owned(), password }))
    }
}

/// Returns `registry/a/b`, `registry/a`, `registry`: the most specific key first.
fn candidates(registry: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{registry}/{repository}");
    let mut keys = vec![key.clone()];
    while let Some((shorter, _)) = key.rsplit_once('/') {
        key = shorter.to_owned();
        keys.push(key.clone());
    }
    keys
}

/// Normalises a key of an auth file; docker once wrote `https://index.docker.io/v1/`.
pub(super) fn canonical(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    // A key written as a URL names a host; its path belongs to the API, not to a repository.
    let key = bare.map_or(key, |bare| bare.split('/').next().unwrap_or(bare));
    let key = key.trim_end_matches('/');
    let (host, rest) = match key.split_once('/') {
        Some((host, rest)) => (host, Some(rest)),
        None => (key, None),
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    rest.map_or_else(|| host.to_owned(), |rest| format!("{host}/{rest}"))
}

/// Returns the name of a registry as credential helpers expect it.
pub(super) fn server_name(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}
