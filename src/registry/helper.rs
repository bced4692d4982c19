//! Credential helpers: `docker-credential-NAME get`, the server's name on stdin, JSON on stdout.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
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
    let answer = match ask(program.as_ref(), server, PATIENCE) {
        Err(Failure::Missing) if may_be_missing => return Ok(None),
        Err(Failure::Missing) => Err("is not installed".to_owned()),
        Err(Failure::Other(why)) => Err(why),
        Ok(answer) => Ok(answer),
    };
    answer.map_err(|why| {
        Error::registry(format!("the credential helper {program} {why}"))
            .hint("the auth file's credHelpers or credsStore names it; try `podman login`")
    })
}

#[derive(Debug)]
enum Failure {
    Missing,
    Other(String),
}

fn ask(program: &OsStr, server: &str, patience: Duration) -> Result<Option<Login>, Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::Other(format!("{what}: {error}"));
    let spawned = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::Missing,
        _ => failed("can't be started", error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that doesn't read is judged by its answer.
        let _ = stdin.write_all(server.as_bytes());
    }
    let stdout = child.stdout.take().expect("it is piped");
    let (sender, receiver) = mpsc::channel();
    // Not joined: what the helper leaves behind may hold the pipe for ever.
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.take(LARGEST_ANSWER).read_to_end(&mut text);
        let _ = sender.send(read.map(|_| text));
    });
    let deadline = Instant::now() + patience;
    let success = wait(&mut child, deadline).map_err(|error| failed("does not end", error))?;
    let text = receiver
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .map_err(|_| Failure::Other("does not close its output".into()))?
        .map_err(|error| failed("can't be read", error))?;
    if !success {
        // The protocol has no code for this, only words.
        let words = String::from_utf8_lossy(&text);
        if words.contains("credentials not found") {
            return Ok(None);
        }
        return Err(Failure::Other(format!("failed: {}", printable(&words, 200))));
    }
    let answer: Answer = serde_json::from_slice(&text)
        .map_err(|_| Failure::Other("does not answer in its protocol".into()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::IdentityToken(answer.secret),
        _ => Login::Basic { username: answer.username, password: answer.secret },
    }))
}

fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn answer_of(script: &str) -> Result<Option<Login>, String> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("helper");
        // The shell that writes it also closes it, so that no other thread's fork holds it open for
        // writing while it is executed.
        let text = format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\nread -r server\n{script}\n");
        let write = Command::new("sh")
            .args(["-c", "printf %s \"$1\" > \"$2\"", "sh", &text])
            .arg(&program)
            .status();
        assert!(write.unwrap().success());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ask(program.as_os_str(), "r.example", Duration::from_millis(1500)).map_err(|failure| {
            match failure {
                Failure::Missing => "missing".to_owned(),
                Failure::Other(why) => why,
            }
        })
    }

    #[test]
    fn answers() {
        let login = answer_of(
            r#"printf '{"ServerURL":"%s","Username":"u-%s","Secret":"hunter2"}' $server $server"#,
        );
        let password = Password::new("hunter2");
        let expected = Login::Basic { username: "u-r.example".into(), password: password.clone() };
        assert_eq!(login, Ok(Some(expected)));
        let token = answer_of(r#"echo '{"Username":"<token>","Secret":"hunter2"}'"#);
        assert_eq!(token, Ok(Some(Login::IdentityToken(password))));
        let none = answer_of("echo credentials not found in native keychain; exit 1");
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn failures_are_told_and_bounded() {
        let cases = [
            ("echo out of order; exit 1", "failed: out of order"),
            ("echo hello", "protocol"),
            ("echo '{}'", "protocol"),
            ("exec sleep 60", "does not end"),
            ("sleep 60 & echo '{}'", "does not close its output"),
        ];
        for (script, part) in cases {
            let started = Instant::now();
            let why = answer_of(script).unwrap_err();
            assert!(why.contains(part), "{script}: {why}");
            assert!(started.elapsed() < Duration::from_secs(10));
        }
    }

    #[test]
    fn a_missing_helper() {
        assert_eq!(get("svp-test-no-such-helper", "r", true).unwrap(), None);
        let error = get("svp-test-no-such-helper", "r", false).unwrap_err();
        assert!(error.to_string().contains("is not installed"), "{error}");
        for name in ["", "../x", "a b", "a/b"] {
            assert!(get(name, "r", true).is_err(), "{name}");
        }
    }
}
