//! `svp login` and `logout`: logins tried at their registry, and kept where podman, skopeo and docker keep them.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::auth::{AuthFiles, LARGEST_FILE, Login, Password, canonical};
use super::http::{Method, Sent};
use super::{Client, ClientOptions, retry, status};
use crate::error::{Error, IoContext, Result};

/// Whether `user` may log in to `registry` (`HOST[:PORT]`): the registry is asked.
///
/// # Errors
/// [`Kind::Registry`](crate::error::Kind::Registry) if it refuses or can't be reached.
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
            let sent = Sent { method: Method::Get, authorization, ..Sent::default() };
            client.0.http.send(&url, &sent)
        };
        let place = (registry.to_owned(), String::new());
        let response = client.authorized(&place, &url, 1, &request)?;
        match response.status {
            200 => {
                response.discard();
                Ok(())
            }
            _ => Err(status::fault(response, "whether a login is right")),
        }
    });
    asked.map_err(|error| error.context(format!("login to {registry}")))
}

/// The file that logins are written to: the first of those that are read which podman writes too.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if no place for one is known.
pub fn login_file(files: &AuthFiles) -> Result<PathBuf> {
    files.paths().first().cloned().ok_or_else(|| {
        Error::usage("there is no place for a login: neither XDG_RUNTIME_DIR nor HOME is set")
            .hint("name a file with --authfile")
    })
}

/// Writes the login for `key` (`HOST[:PORT][/NAMESPACE]`) into the auth file at `path`. All else in it stays.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if the file is not understood, or names a credential helper for
/// this registry; [`Kind::Storage`](crate::error::Kind::Storage).
pub fn save_login(path: &Path, key: &str, user: &str, password: &Password) -> Result<()> {
    let mut file = read(path)?;
    let host = key.split('/').next().unwrap_or(key);
    let helper = file["credHelpers"]
        .as_object()
        .is_some_and(|helpers| helpers.keys().any(|name| canonical(name) == host));
    if helper || file["credsStore"].is_string() {
        return Err(Error::bad_input(format!(
            "{} says that a credential helper keeps the login to {host}",
            path.display()
        ))
        .hint("log in with `docker login`, or into another file with --authfile"));
    }
    let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
    let auths = auths(&mut file, path)?;
    auths.retain(|name, _| canonical(name) != key);
    auths.insert(key.to_owned(), json!({ "auth": pair }));
    write(path, &file)
}

/// Takes the login for `key`, or every one, out of the auth file at `path`; false if there was none.
///
/// # Errors
/// As [`save_login`].
pub fn remove_login(path: &Path, key: Option<&str>) -> Result<bool> {
    let mut file = read(path)?;
    let auths = auths(&mut file, path)?;
    let before = auths.len();
    auths.retain(|name, _| key.is_some_and(|key| canonical(name) != key));
    if auths.len() == before {
        return Ok(false);
    }
    write(path, &file).map(|()| true)
}

fn bad(path: &Path) -> Error {
    Error::bad_input(format!("the auth file {} is not understood", path.display()))
        .hint("mend it, remove it, or name another with --authfile")
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
    let value: Value = serde_json::from_slice(&text).map_err(|_| bad(path))?;
    if value.is_object() { Ok(value) } else { Err(bad(path)) }
}

fn auths<'a>(file: &'a mut Value, path: &Path) -> Result<&'a mut Map<String, Value>> {
    if file["auths"].is_null() {
        file["auths"] = json!({});
    }
    file["auths"].as_object_mut().ok_or_else(|| bad(path))
}

/// Writes the file whole or not at all, for its owner alone. One that is a link stays one.
fn write(path: &Path, file: &Value) -> Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).io("make", dir)?;
    let mut output = tempfile::Builder::new()
        .prefix(".svp-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .io("make a file in", dir)?;
    output.write_all(format!("{file:#}\n").as_bytes()).io("write", &path)?;
    output.as_file().sync_all().io("sync", &path)?;
    output.persist(&path).map_err(|error| Error::io("write", &path, error.error)).map(drop)
}
