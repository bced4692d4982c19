//! `svp login` and `logout`: checks logins at the registry, and stores them where podman, skopeo and docker do.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::auth::{AuthFiles, THE_FILES};
use super::auth_file::{self, LARGEST_FILE, canonical, server_name};
use super::credential_helper;
use super::credentials::{Login, Password};
use super::http::{Method, WriteRequest};
use super::scope::Access;
use super::{Client, ClientOptions, retry, status};
use crate::error::{Error, IoContext, Result};

/// Checks at `registry` (`HOST[:PORT]`) whether `user` may log in.
///
/// # Errors
/// [`Kind::Registry`](crate::error::Kind::Registry) if the registry refuses or can't be reached.
pub fn try_login(
    registry: &str,
    user: &str,
    password: &Password,
    options: &ClientOptions,
) -> Result<()> {
    let login = Login::Basic { username: user.to_owned(), password: password.clone() };
    let options = ClientOptions { auth_files: AuthFiles::given(login), ..options.clone() };
    let insecure = options.registries.conf()?.insecure(registry)?;
    let client = Client::trusting(options, insecure)?;
    let asked = retry::run(client.options(), || {
        let url = client.url(registry, "/v2/")?;
        let request = |authorization: Option<&str>| {
            let sent =
                WriteRequest { method: Method::Get, authorization, ..WriteRequest::default() };
            client.0.http.send(&url, &sent)
        };
        let access = Access {
            registry: registry.to_owned(),
            repository: String::new(),
            push: false,
            mount_from: None,
        };
        let response = client.authorized(&access, &url, &request)?;
        match response.status {
            200 => {
                response.discard();
                Ok(())
            }
            _ => Err(status::fault(response, "the login check")),
        }
    });
    asked.map_err(|error| error.context(format!("login to {registry}")))
}

/// The place of the login for one key (`HOST[:PORT][/NAMESPACE]`): an auth file or a credential helper.
#[derive(Debug)]
pub struct CredentialStore {
    key: String,
    /// The file that logins are written to: the first of those that are read, which podman writes to as well.
    file: PathBuf,
    /// All auth files, in the order in which they are searched.
    files: Vec<PathBuf>,
    helper: Option<String>,
}

impl CredentialStore {
    /// Finds the place of the login for `key`; `named` is the auth file that the user named.
    ///
    /// A credential helper comes from registries.conf, or from an auth file: `credHelpers` for this registry, or
    /// `credsStore`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if there is no auth file to write;
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) for a file that can't be parsed or that names a helper which is
    /// not installed.
    pub fn of(options: &ClientOptions, named: Option<PathBuf>, key: &str) -> Result<Self> {
        let file = auth_file(options, named.clone())?;
        let files = named.map_or_else(|| options.auth_files.paths().to_vec(), |named| vec![named]);
        let conf = options.registries.conf()?;
        let first = conf.helpers().and_then(|helpers| helpers.first());
        let helper = match first.filter(|first| *first != THE_FILES) {
            Some(first) => Some(first.clone()),
            None => helper_in(&files, host_of(key))?,
        };
        Ok(CredentialStore { key: key.to_owned(), file, files, helper })
    }

    /// Refuses logins that a helper can't store.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) for the login of a namespace.
    pub fn check(&self) -> Result<()> {
        match &self.helper {
            Some(name) if self.key.contains('/') => Err(Error::usage(format!(
                "docker-credential-{name} stores the login to {}, and does not support namespaces",
                host_of(&self.key)
            ))
            .hint("log in to the registry as a whole, or into another file with --authfile")),
            _ => Ok(()),
        }
    }

    /// Stores the login, replacing an existing one. Keeps everything else in the file.
    ///
    /// # Errors
    /// [`Kind::BadInput`](crate::error::Kind::BadInput) if the file can't be parsed;
    /// [`Kind::Registry`](crate::error::Kind::Registry) if the helper fails;
    /// [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn save(&self, user: &str, password: &Password) -> Result<()> {
        let Some(helper) = &self.helper else {
            let mut file = read(&self.file)?;
            let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
            let auths = auths(&mut file, &self.file)?;
            auths.retain(|name, _| canonical(name) != self.key);
            auths.insert(self.key.clone(), json!({ "auth": pair }));
            return write(&self.file, &file);
        };
        credential_helper::store(helper, server_name(&self.key), user, password)?;
        // A login left in a file would take precedence.
        for file in &self.files {
            remove_from(file, |name| canonical(name) == self.key)?;
        }
        Ok(())
    }

    /// Removes the login; returns false if there was none.
    ///
    /// # Errors
    /// As [`CredentialStore::save`].
    pub fn remove(&self) -> Result<bool> {
        let mut removed = remove_from(&self.file, |name| canonical(name) == self.key)?;
        if let Some(helper) = self.helper.as_ref().filter(|_| !self.key.contains('/')) {
            let server = server_name(&self.key);
            if credential_helper::get(helper, server, false)?.is_some() {
                credential_helper::erase(helper, server)?;
                removed = true;
            }
        }
        Ok(removed)
    }
}

impl fmt::Display for CredentialStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.helper {
            Some(name) => write!(f, "docker-credential-{name}"),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// Removes all logins in the auth file, and those in the helpers of its `credHelpers`. Returns the file's path.
///
/// # Errors
/// As [`CredentialStore::save`].
pub fn remove_logins(options: &ClientOptions, named: Option<PathBuf>) -> Result<PathBuf> {
    let path = auth_file(options, named)?;
    remove_from(&path, |_| true)?;
    if let Some(file) = auth_file::read(&path, false)? {
        for (registry, helper) in file.own_helpers() {
            let server = server_name(&registry);
            if credential_helper::get(helper, server, false)?.is_some() {
                credential_helper::erase(helper, server)?;
            }
        }
    }
    Ok(path)
}

fn auth_file(options: &ClientOptions, named: Option<PathBuf>) -> Result<PathBuf> {
    named.or_else(|| options.auth_files.paths().first().cloned()).ok_or_else(|| {
        Error::usage("no path for the auth file: neither XDG_RUNTIME_DIR nor HOME is set")
            .hint("name a file with --authfile")
    })
}

/// Returns the installed helper from the first file that names one for `registry`.
fn helper_in(files: &[PathBuf], registry: &str) -> Result<Option<String>> {
    for (number, path) in files.iter().enumerate() {
        let Some(file) = auth_file::read(path, false)? else { continue };
        let own = file.own_helper(registry);
        let Some(name) = own.or(file.store()) else { continue };
        if credential_helper::is_installed(name)? {
            return Ok(Some(name.to_owned()));
        }
        // Docker Desktop leaves its credsStore entry behind when it is uninstalled: ignore it, except in the first
        // file.
        if own.is_some() || number == 0 {
            return Err(Error::bad_input(format!(
                "{} names docker-credential-{name} for the login to {registry}, but it is not installed",
                path.display()
            ))
            .hint("install it, or log in into another file with --authfile"));
        }
    }
    Ok(None)
}

fn host_of(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

/// Removes logins from the auth file at `path`; returns false if there was none. Keeps the empty entries by which
/// docker marks logins in a helper.
fn remove_from(path: &Path, which: impl Fn(&str) -> bool) -> Result<bool> {
    let mut file = read(path)?;
    let auths = auths(&mut file, path)?;
    let before = auths.len();
    let empty = |entry: &Value| entry.is_null() || entry.as_object().is_some_and(Map::is_empty);
    auths.retain(|name, entry| !which(name) || empty(entry));
    if auths.len() == before {
        return Ok(false);
    }
    write(path, &file).map(|()| true)
}

fn bad(path: &Path) -> Error {
    Error::bad_input(format!("can't parse the auth file {}", path.display()))
        .hint("fix it, remove it, or name another with --authfile")
}

fn read(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => {
            let file = opened.io("read the auth file", path)?;
            file.take(LARGEST_FILE + 1).read_to_end(&mut text).io("read the auth file", path)?;
        }
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    // serde's message may quote the file's text.
    match serde_json::from_slice(&text).map_err(|_| bad(path))? {
        Value::Null => Ok(json!({})),
        value if value.is_object() => Ok(value),
        _ => Err(bad(path)),
    }
}

fn auths<'a>(file: &'a mut Value, path: &Path) -> Result<&'a mut Map<String, Value>> {
    if file["auths"].is_null() {
        file["auths"] = json!({});
    }
    file["auths"].as_object_mut().ok_or_else(|| bad(path))
}

/// Writes the file atomically, with mode 0600. Writes through a symbolic link.
fn write(path: &Path, file: &Value) -> Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).io("create", dir)?;
    let mut output = tempfile::Builder::new()
        .prefix(".svp-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .io("create a file in", dir)?;
    output.write_all(format!("{file:#}\n").as_bytes()).io("write", &path)?;
    output.as_file().sync_all().io("sync", &path)?;
    output.persist(&path).map_err(|error| Error::io("write", &path, error.error)).map(drop)
}
