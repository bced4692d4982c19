//! Credentials from the files of podman, skopeo and docker, and from credential helpers.

use std::env;
use std::path::{Path, PathBuf};

use super::auth_file::{from_helper, read};
use super::credentials::Login;
use crate::error::Result;

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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    use super::super::credentials::Password;
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
    }

    #[test]
    fn nulls_and_empty_values_are_no_logins() {
        let empty = [
            "",
            "  \n",
            "null",
            "{}",
            r#"{"auths":null}"#,
            r#"{"auths":{}}"#,
            r#"{"auths":{"r.example":null}}"#,
            r#"{"auths":{"r.example":{}}}"#,
            r#"{"auths":{"r.example":{"auth":null,"identitytoken":null,"email":null}}}"#,
            r#"{"auths":{"r.example":{"auth":"","username":"","password":""}}}"#,
            r#"{"auths":null,"credHelpers":null,"credsStore":null}"#,
            r#"{"credHelpers":{"r.example":null}}"#,
            r#"{"credHelpers":{"r.example":""},"credsStore":""}"#,
            r#"{"auths":null,"currentContext":null,"proxies":null,"HttpHeaders":null}"#,
        ];
        for text in empty {
            let (_keep, files) = file(text);
            assert!(files.find("r.example", "x").unwrap().is_none(), "{text}");
        }
        let text =
            format!(r#"{{"auths":{{"a":null,"r.example":{}}},"credHelpers":null}}"#, entry("u"));
        let (_keep, files) = file(&text);
        assert_eq!(user(files.find("r.example", "x")).as_deref(), Some("u"));
        for text in ["7", r#"{"auths":[]}"#, r#"{"auths":{"r.example":"x"}}"#] {
            let (_keep, files) = file(text);
            assert!(files.find("r.example", "x").is_err(), "{text}");
        }
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
