//! Credential helpers: `docker-credential-NAME get|store|erase` reads a server's name or JSON, and writes JSON.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::credentials::{Login, Password};
use super::fault::excerpt;
use crate::error::{Error, Result};

/// Long enough for a helper that prompts for a passphrase.
const TIMEOUT: Duration = Duration::from_secs(60);
const LARGEST_ANSWER: u64 = 1 << 20;
/// How long to wait for the rest of stderr after the helper's exit.
const BRIEFLY: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Password,
}

/// Queries the helper `name` for the login to `server`; `None` if it has none, or if the program is missing and
/// `may_be_missing`.
pub(super) fn get(name: &str, server: &str, may_be_missing: bool) -> Result<Option<Login>> {
    let program = program(name)?;
    match get_login(program.as_ref(), server, TIMEOUT) {
        Err(Failure::Missing) if may_be_missing => Ok(None),
        answer => answer.map_err(|failure| failure.of(&program)),
    }
}

/// Stores a login to `server` in the helper `name`, replacing an existing one.
pub(super) fn store(name: &str, server: &str, user: &str, password: &Password) -> Result<()> {
    let login = json!({ "ServerURL": server, "Username": user, "Secret": password.reveal() });
    run_action(name, "store", login.to_string(), password.reveal())
}

/// Removes the login to `server` from the helper `name`.
pub(super) fn erase(name: &str, server: &str) -> Result<()> {
    run_action(name, "erase", server.to_owned(), "")
}

/// Returns whether the program of the helper `name` is installed.
pub(super) fn is_installed(name: &str) -> Result<bool> {
    let program = program(name)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::split_paths(&path).any(|dir| dir.join(&program).is_file()))
}

fn program(name: &str) -> Result<String> {
    let sane = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(sane) {
        return Err(Error::bad_input(format!("invalid credential helper name: {name:?}")));
    }
    Ok(format!("docker-credential-{name}"))
}

/// Runs a helper that returns nothing; never shows `secret`, which a failing helper may repeat.
fn run_action(name: &str, action: &str, input: String, secret: &str) -> Result<()> {
    let program = program(name)?;
    let result = run(program.as_ref(), action, input.into_bytes(), TIMEOUT);
    let failure = match result {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => Failure::from_output(&output),
        Err(failure) => failure,
    };
    let failure = match failure {
        Failure::Other(words) if !secret.is_empty() => Failure::Other(words.replace(secret, "…")),
        other => other,
    };
    Err(failure.of(&program))
}

#[derive(Debug)]
enum Failure {
    Missing,
    Other(String),
}

impl Failure {
    /// Helpers report on stdout; the programs that they call, and wrappers, on stderr.
    fn from_output(output: &Output) -> Self {
        let words: Vec<_> = [&output.stdout, &output.stderr].map(|words| text(words)).into();
        let words: Vec<_> = words.into_iter().filter(|words| !words.is_empty()).collect();
        Failure::Other(match (words.is_empty(), output.status) {
            (false, _) => format!("failed: {}", words.join("; ")),
            (true, status) => format!("failed without a message ({status})"),
        })
    }

    /// A failure of which stdout must not be shown, since it may contain a secret.
    fn with_stderr(why: &str, output: &Output) -> Self {
        let words = text(&output.stderr);
        Failure::Other(if words.is_empty() { why.to_owned() } else { format!("{why}: {words}") })
    }

    fn of(self, program: &str) -> Error {
        let why = match self {
            Failure::Missing => "is not installed",
            Failure::Other(ref why) => why,
        };
        Error::registry(format!("the credential helper {program} {why}")).hint(format!(
            "the auth file's credHelpers or credsStore, or registries.conf, names it; `echo REGISTRY | {program} get` \
             runs it alone"
        ))
    }
}

fn get_login(program: &OsStr, server: &str, timeout: Duration) -> Result<Option<Login>, Failure> {
    let output = run(program, "get", server.as_bytes().to_vec(), timeout)?;
    if !output.status.success() {
        // The protocol has no exit code for this, only this message.
        let absent =
            |words: &[u8]| String::from_utf8_lossy(words).contains("credentials not found");
        if absent(&output.stdout) || absent(&output.stderr) {
            return Ok(None);
        }
        return Err(Failure::from_output(&output));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| Failure::with_stderr("sends an answer that violates the protocol", &output))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::IdentityToken(answer.secret),
        _ => Login::Basic { username: answer.username, password: answer.secret },
    }))
}

/// Returns what a helper wrote, shortened and safe to print.
fn text(words: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(words), 300)
}

/// Runs the program with `input` on stdin.
fn run(
    program: &OsStr,
    action: &str,
    input: Vec<u8>,
    timeout: Duration,
) -> Result<Output, Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::Other(format!("{what}: {error}"));
    let spawned = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::Missing,
        _ => failed("can't be started", error),
    })?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let stdout = reader(child.stdout.take().expect("it is piped"));
    let stderr = reader(child.stderr.take().expect("it is piped"));
    // Not joined: a helper that does not read its input is judged by its output.
    thread::spawn(move || stdin.write_all(&input));
    let deadline = Instant::now() + timeout;
    let status = wait(&mut child, deadline).map_err(|error| {
        // What it has written so far may tell what it waits for.
        let words = stderr.recv_timeout(BRIEFLY).unwrap_or(Ok(Vec::new())).unwrap_or_default();
        match text(&words).as_str() {
            "" => failed("does not exit in time", error),
            words => Failure::Other(format!("does not exit in time: {words}")),
        }
    })?;
    let text = stdout
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .map_err(|_| Failure::Other("does not close its output".into()))?
        .map_err(|error| failed("can't be read", error))?;
    // A process that the helper leaves behind may keep stderr open.
    let stderr = stderr.recv_timeout(BRIEFLY).unwrap_or(Ok(Vec::new())).unwrap_or_default();
    Ok(Output { status, stdout: text, stderr })
}

/// Reads a pipe to its end in a thread, which is not joined: processes that the helper leaves behind may keep the pipe
/// open forever.
fn reader(pipe: impl Read + Send + 'static) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = pipe.take(LARGEST_ANSWER).read_to_end(&mut text);
        // The receiver may have timed out.
        let _ = sender.send(read.map(|_| text));
    });
    receiver
}

fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
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
        // A shell writes the file, so that no fork of another thread keeps it open for writing, which would make
        // execve fail with ETXTBSY.
        let text = format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\nread -r server\n{script}\n");
        let write = Command::new("sh")
            .args(["-c", "printf %s \"$1\" > \"$2\"", "sh", &text])
            .arg(&program)
            .status();
        assert!(write.unwrap().success());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        get_login(program.as_os_str(), "r.example", Duration::from_millis(1500)).map_err(
            |failure| match failure {
                Failure::Missing => "missing".to_owned(),
                Failure::Other(why) => why,
            },
        )
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
        let none = answer_of("echo credentials not found in native keychain >&2; exit 1");
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn failures_are_reported_in_time() {
        let cases = [
            ("echo out of order; exit 1", "failed: out of order"),
            ("echo 'gpg: no key' >&2; exit 2", "failed: gpg: no key"),
            (
                "echo broken; echo 'exec: aws not found' >&2; exit 1",
                "failed: broken; exec: aws not found",
            ),
            ("exit 3", "failed without a message (exit status: 3)"),
            ("echo 'log in first' >&2; echo '{}'", "violates the protocol: log in first"),
            ("echo '{\"Username\":\"u\",\"secret\":\"hunter2\"}'", "violates the protocol"),
            (
                "echo 'touch the key' >&2; exec 2>&-; exec sleep 60",
                "does not exit in time: touch the key",
            ),
            ("echo hello", "protocol"),
            ("echo '{}'", "protocol"),
            ("exec sleep 60", "does not exit in time"),
            ("sleep 60 & echo '{}'", "does not close its output"),
        ];
        for (script, part) in cases {
            let started = Instant::now();
            let why = answer_of(script).unwrap_err();
            assert!(why.contains(part), "{script}: {why}");
            assert!(!why.contains("hunter2") && !why.contains('\n'), "{why}");
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
