//! Credentials from the files of podman, skopeo and docker (containers-auth.json(5), docker's config.json).

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::credential_helper;
use super::credentials::{Login, Password};
use crate::error::{Error, IoContext, Result};

/// The maximum size of an auth file, in bytes.
pub(super) const LARGEST_FILE: u64 = 4 << 20;

/// The name of the auth files in `credential-helpers` of registries.conf.
pub(super) const THE_FILES: &str = "containers-auth.json";

/// The origin of a login that is not stored yet.
pub(super) const GIVEN: &str = "";

/// The files in which credentials are looked up, in this order.
#[derive(Clone, Debug)]
pub struct AuthFiles {
    files: Vec<PathBuf>,
    /// A file that the user named must exist.
    required: bool,
    /// A login that is not in any file yet.
    given: Option<Login>,
    /// `credential-helpers` of registries.conf: programs, and [`THE_FILES`] for the auth files.
    helpers: Vec<String>,
}

impl AuthFiles {
    /// Uses no files: all requests are anonymous.
    pub fn none() -> Self {
        Self::of(Vec::new(), false)
    }

    /// Uses `login` for every registry.
    pub(super) fn given(login: Login) -> Self {
        AuthFiles { given: Some(login), ..Self::none() }
    }

    /// Returns the files, in the order in which they are searched.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.files
    }

    /// Uses only `path`, which must exist.
    pub fn only(path: impl Into<PathBuf>) -> Self {
        Self::of(vec![path.into()], true)
    }

    /// Uses only `--authfile` if given; else only `REGISTRY_AUTH_FILE` if set; else
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json` and
    /// `~/.docker/config.json` (`$DOCKER_CONFIG/config.json`).
    pub fn from_env(authfile: Option<&Path>) -> Self {
        if let Some(path) = authfile {
            return Self::only(path);
        }
        let dir = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(path) = dir("REGISTRY_AUTH_FILE") {
            return Self::of(vec![path], false);
        }
        let home = dir("HOME");
        let config = dir("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|h| h.join(".config")));
        let docker = dir("DOCKER_CONFIG").or_else(|| home.as_ref().map(|h| h.join(".docker")));
        let files = [
            dir("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json")),
            config.map(|d| d.join("containers/auth.json")),
            docker.map(|d| d.join("config.json")),
        ];
        Self::of(files.into_iter().flatten().collect(), false)
    }

    fn of(files: Vec<PathBuf>, required: bool) -> Self {
        AuthFiles { files, required, given: None, helpers: vec![THE_FILES.to_owned()] }
    }

    /// Adds the credential helpers of registries.conf: they are queried in order, and `containers-auth.json` among
    /// them stands for the files.
    pub(super) fn with_helpers(self, helpers: &[String]) -> Self {
        AuthFiles { helpers: helpers.to_vec(), ..self }
    }

    /// Returns the login for `repository` of `registry` (`HOST[:PORT]`), and its origin.
    ///
    /// # Errors
    /// If a file can't be read or parsed, a named file is missing, or a credential helper fails.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<(Login, String)>> {
        if let Some(login) = &self.given {
            return Ok(Some((login.clone(), GIVEN.to_owned())));
        }
        for helper in &self.helpers {
            let found = match helper.as_str() {
                THE_FILES => self.find_in_files(registry, repository)?,
                name => from_helper(name, registry, false)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in_files(&self, registry: &str, repository: &str) -> Result<Option<(Login, String)>> {
        for path in &self.files {
            let Some(file) = read(path, self.required)? else { continue };
            if let Some(found) = file.find(path, registry, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Returns the login for `registry` from a credential helper, and its origin.
fn from_helper(
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
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
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
    serde_json::from_slice(&text).map(Some).map_err(|error| {
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
        let found = self.helpers.iter().find(|(key, _)| canonical(key) == registry);
        found.map(|(_, name)| name.as_str())
    }

    /// Returns the registries in `credHelpers`, each with its credential helper.
    pub(super) fn own_helpers(&self) -> impl Iterator<Item = (String, &str)> {
        self.helpers.iter().map(|(key, name)| (canonical(key), name.as_str()))
    }

    /// Returns the credential helper for all other registries (`credsStore`).
    pub(super) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    fn find(
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
        match &self.store {
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
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(found: Result<Option<(Login, String)>>) -> Option<String> {
        match found.unwrap() {
            Some((Login::Basic { username, .. }, _)) => Some(username),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, AuthFiles) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let files = AuthFiles::only(file.path());
        (file, files)
    }

    fn entry(user: &str) -> String {
        let auth = BASE64_STANDARD.encode(format!("{user}:hunter:2"));
        format!("{{\"auth\":\"{auth}\"}}")
    }

    #[test]
    fn the_most_specific_key_wins() {
        let text = format!(
            r#"{{"auths":{{"r.example":{},"r.example/a":{},"r.example/a/b":{},"r.example:5":{},
                 "https://index.docker.io/v1/":{},"http://old.example/v2/":{},"empty.example":{{}}}}}}"#,
            entry("host"),
            entry("space"),
            entry("repo"),
            entry("port"),
            entry("hub"),
            entry("old")
        );
        let (_keep, files) = file(&text);
        let cases = [
            ("r.example", "x", Some("host")),
            ("r.example", "ab", Some("host")),
            ("r.example", "a", Some("space")),
            ("r.example", "a/c/d", Some("space")),
            ("r.example", "a/b", Some("repo")),
            ("r.example", "a/b/c", Some("repo")),
            ("r.example:5", "a", Some("port")),
            ("docker.io", "library/debian", Some("hub")),
            ("old.example", "x", Some("old")),
            ("empty.example", "x", None),
            ("other.example", "x", None),
        ];
        for (registry, repository, expected) in cases {
            let found = user(files.find(registry, repository));
            assert_eq!(found.as_deref(), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn a_password_may_contain_colons_and_is_never_shown() {
        let (_keep, files) = file(&format!(r#"{{"auths":{{"r.example":{}}}}}"#, entry("u")));
        let (login, place) = files.find("r.example", "x").unwrap().unwrap();
        assert!(!format!("{login:?} {place}").contains("hunter"));
        let Login::Basic { password, .. } = login else { panic!() };
        assert_eq!(password.reveal(), "hunter:2");
    }

    #[test]
    fn errors_name_the_file_without_quoting_it() {
        let cases = [
            "{\"auths\":{\"r.example\":{\"auth\":\"hunter2\"",
            "{\"auths\":{\"r.example\":{\"auth\":\"hunter2!\"}}}",
            "{\"auths\":{\"r.example\":{\"auth\":\"aHVudGVyMg==\"}}}",
            "{\"auths\":\"hunter2\"}",
        ];
        for text in cases {
            let (keep, files) = file(text);
            let error = files.find("r.example", "x").unwrap_err();
            let shown = format!("{error:?}");
            assert!(shown.contains(keep.path().to_str().unwrap()), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(AuthFiles::only("/nonexistent/auth.json").find("r.example", "x").is_err());
        let (_keep, files) = file("  \n");
        assert!(files.find("r.example", "x").unwrap().is_none());
    }

    #[test]
    fn tokens() {
        let (_keep, files) = file(
            r#"{"auths":{"a.example":{"auth":"","identitytoken":"t1"},"b.example":{"registrytoken":"t2"}}}"#,
        );
        let find = |registry| files.find(registry, "x").unwrap().unwrap().0;
        assert_eq!(find("a.example"), Login::IdentityToken(Password::new("t1")));
        assert_eq!(find("b.example"), Login::RegistryToken(Password::new("t2")));
    }
}
