//! Credential helpers: `docker-credential-NAME get`, the server's name on stdin, JSON on stdout.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::auth::{Login, Password};
use super::fault::printable;
use crate::error::{Error, Result};

/// A helper may ask its user for a passphrase in a window of its own.
const PATIENCE: Duration = Duration::from_secs(60);
const LARGEST_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Password,
}

/// Asks the helper `name` for the login to `server`; none if it holds none, or if the program
/// `may_be_missing` and is.
pub(super) fn get(name: &str, server: &str, may_be_missing: bool) -> Result<Option<Login>> {
    let sane = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(sane) {
        return Err(Error::bad_input(format!("{name:?} is no name of a credential helper")));
    }
    let program = format!("docker-credential-{name}");
    let failed = |why: String| {
        Error::registry(format!("the credential helper {program} {why}"))
            .hint("the auth file's credHelpers or credsStore names it; try `podman login`")
    };
    let spawned = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        other => other.map_err(|error| failed(format!("can't be started: {error}")))?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that doesn't read is judged by its answer.
        let _ = stdin.write_all(server.as_bytes());
    }
    let stdout = child.stdout.take().expect("it is piped");
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.take(LARGEST_ANSWER).read_to_end(&mut text).map(|_| text)
    });
    let success = wait(&mut child).map_err(|error| failed(format!("failed: {error}")))?;
    let text = reader
        .join()
        .expect("the reader doesn't panic")
        .map_err(|error| failed(format!("can't be read: {error}")))?;
    if !success {
        // The protocol has no code for this, only words.
        let words = String::from_utf8_lossy(&text);
        if words.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("failed: {}", printable(&words, 200))));
    }
    let answer: Answer =
        serde_json::from_slice(&text).map_err(|_| failed("did not answer in JSON".into()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::IdentityToken(answer.secret),
        _ => Login::Basic { username: answer.username, password: answer.secret },
    }))
}

fn wait(child: &mut Child) -> std::io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}
