//! Queries a pack's keys one by one, through a function that runs the script.

use std::fmt;
use std::str::FromStr;

use super::lines::{Source, is_empty, shorten};
use super::values::{EnvVar, Os, overlap};
use super::{Health, Port, SCRIPT, Stop};
use super::{
    parse_components, parse_env, parse_health, parse_os, parse_ports, parse_secrets, parse_stop,
    parse_version, parse_volumes, ports_from_env,
};
use crate::error::{Error, Result};

/// A key of `bin/query`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The version of the servicepack API.
    Version,
    /// The operating system to build on.
    Os,
    /// The names of the secrets that svp generates.
    Secrets,
    /// The environment that clients need to reach the service.
    Env,
    /// The service's processes.
    Components,
    /// The ports that the service listens on.
    Ports,
    /// The directories that hold the service's data.
    Volumes,
    /// The health check command.
    Health,
    /// The stop signal, and the time before SIGKILL.
    Stop,
}

impl Key {
    /// Every key, in query order.
    pub const ALL: [Key; 9] = [
        Key::Version,
        Key::Os,
        Key::Secrets,
        Key::Env,
        Key::Components,
        Key::Ports,
        Key::Volumes,
        Key::Health,
        Key::Stop,
    ];

    /// Returns the script's argument.
    pub fn as_str(self) -> &'static str {
        match self {
            Key::Version => "version",
            Key::Os => "os",
            Key::Secrets => "secrets",
            Key::Env => "env",
            Key::Components => "components",
            Key::Ports => "ports",
            Key::Volumes => "volumes",
            Key::Health => "health",
            Key::Stop => "stop",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Key::ALL.into_iter().find(|key| key.as_str() == text).ok_or_else(|| {
            let keys: Vec<&str> = Key::ALL.iter().map(|key| key.as_str()).collect();
            Error::usage(format!("unknown key: {}", shorten(text.as_bytes())))
                .hint(format!("use one of {}", keys.join(", ")))
        })
    }
}

/// The result of running `bin/query KEY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawAnswer {
    /// The whole standard output; the caller has limited its size.
    pub stdout: Vec<u8>,
    /// The exit code, as in a shell: 128 plus the signal number after death by a signal.
    pub status: i32,
    /// The end of standard error, for error messages.
    pub stderr_tail: String,
}

impl RawAnswer {
    /// Returns the bytes to parse. A key without output is unanswered, whatever the exit code; output with a
    /// non-zero exit code is refused, since the answer may be incomplete.
    fn checked(&self, key: Key, script: &str) -> Result<&[u8]> {
        if self.status == 0 || is_empty(&self.stdout) {
            return Ok(&self.stdout);
        }
        let source = Source { script, key: key.as_str() };
        let printed = shorten(self.stdout.split(|&b| b == b'\n').next().unwrap_or_default());
        let error = source.bad(format_args!(
            "prints {printed} but {}{}",
            ending(self.status),
            self.last_error()
        ));
        Err(error.hint("print nothing on standard output for a key that the pack doesn't answer, and exit with 0 for one that it does"))
    }

    /// Returns ": " and the last line on standard error, or an empty string.
    fn last_error(&self) -> String {
        let last = self.stderr_tail.lines().rev().find(|line| !line.trim().is_empty());
        last.map(|line| format!(": {}", shorten(line.trim().as_bytes()))).unwrap_or_default()
    }
}

/// Describes how the script ended.
fn ending(status: i32) -> String {
    match status {
        129..=192 => format!("is killed by signal {}", status - 128),
        _ => format!("exits with {status}"),
    }
}

/// A function that runs `bin/query` with a key, in a sandbox.
pub type QueryRunner<'a> = dyn FnMut(Key) -> Result<RawAnswer> + 'a;

/// All answers of a pack. An unanswered key is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The API's version, always 0.
    pub version: u32,
    /// The operating system to build on.
    pub os: Os,
    /// Names of secrets, in the pack's order.
    pub secrets: Vec<String>,
    /// The environment, in the pack's order; it contains no secret.
    pub env: Vec<EnvVar>,
    /// Names of components; empty for a service of one process.
    pub components: Vec<String>,
    /// The answer to `ports`; see [`Answers::exposed_ports`].
    pub ports: Vec<Port>,
    /// Absolute paths.
    pub volumes: Vec<String>,
    /// A command for `/bin/sh -c`, and how to watch it.
    pub health: Option<Health>,
    /// The stop signal and its time.
    pub stop: Option<Stop>,
}

impl Answers {
    /// Returns the service's ports: the answer to `ports`, else the environment's `PORT` and `*_PORT`. If both are
    /// empty, the image keeps the ExposedPorts of its base.
    pub fn exposed_ports(&self) -> Vec<Port> {
        if self.ports.is_empty() { ports_from_env(&self.env) } else { self.ports.clone() }
    }
}

/// Queries one key and returns its checked but unparsed answer.
pub fn run_query(runner: &mut QueryRunner<'_>, key: Key) -> Result<RawAnswer> {
    let answer = runner(key)?;
    answer.checked(key, SCRIPT)?;
    if key == Key::Os && is_empty(&answer.stdout) {
        let source = Source { script: SCRIPT, key: key.as_str() };
        let how = format!("prints nothing and {}{}", ending(answer.status), answer.last_error());
        return Err(source
            .bad(how)
            .hint("print the operating system as NAME/VERSION, such as debian/12"));
    }
    Ok(answer)
}

/// Queries every key, version first, and parses the answers. Refuses a secret whose name `env` repeats.
pub fn query_all(runner: &mut QueryRunner<'_>) -> Result<Answers> {
    let mut output = |key| run_query(runner, key).map(|answer| answer.stdout);
    let version = parse_version(&output(Key::Version)?, SCRIPT)?;
    let os = parse_os(&output(Key::Os)?, SCRIPT)?;
    let secrets = parse_secrets(&output(Key::Secrets)?, SCRIPT)?;
    let env = parse_env(&output(Key::Env)?, SCRIPT)?;
    overlap(&secrets, &env, SCRIPT)?;
    Ok(Answers {
        version,
        os,
        secrets,
        env,
        components: parse_components(&output(Key::Components)?, SCRIPT)?,
        ports: parse_ports(&output(Key::Ports)?, SCRIPT)?,
        volumes: parse_volumes(&output(Key::Volumes)?, SCRIPT)?,
        health: parse_health(&output(Key::Health)?, SCRIPT)?,
        stop: parse_stop(&output(Key::Stop)?, SCRIPT)?,
    })
}

/// Checks the answer to one key and returns its values, one per line, as `svp query` prints them.
pub fn validate(key: Key, answer: &RawAnswer, script: &str) -> Result<Vec<String>> {
    fn shown<T: fmt::Display>(values: Vec<T>) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    let output = answer.checked(key, script)?;
    if is_empty(output) && key != Key::Os {
        return Ok(Vec::new());
    }
    Ok(match key {
        Key::Version => vec![parse_version(output, script)?.to_string()],
        Key::Os => vec![parse_os(output, script)?.to_string()],
        Key::Secrets => parse_secrets(output, script)?,
        Key::Env => shown(parse_env(output, script)?),
        Key::Components => parse_components(output, script)?,
        Key::Ports => shown(parse_ports(output, script)?),
        Key::Volumes => parse_volumes(output, script)?,
        Key::Health => parse_health(output, script)?.map(Health::into_lines).unwrap_or_default(),
        Key::Stop => shown(parse_stop(output, script)?.into_iter().collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(table: &[(Key, &str, i32)]) -> Result<Answers> {
        query_all(&mut |key| {
            let found = table.iter().find(|(k, ..)| *k == key);
            let (stdout, status) = found.map_or(("", 1), |(_, out, status)| (*out, *status));
            let stderr_tail = "no such key\n".to_owned();
            Ok(RawAnswer { stdout: stdout.into(), status, stderr_tail })
        })
    }

    #[test]
    fn the_example_of_the_specification_is_accepted() {
        let answers = answers(&[
            (Key::Os, "ubuntu/13.04\n", 0),
            (Key::Secrets, "MYSQL_PASSWORD\n", 0),
            (Key::Env, "MYSQL_PORT=3306\nMYSQL_USER=user\nMYSQL_HOST=%IP\n", 0),
        ])
        .unwrap();
        assert_eq!(answers.version, 0);
        assert_eq!(answers.os.to_string(), "ubuntu/13.04");
        assert_eq!(answers.secrets, ["MYSQL_PASSWORD"]);
        assert_eq!(answers.exposed_ports()[0].to_string(), "3306/tcp");
        assert!(answers.env[2].needs_ip());
        assert!(answers.components.is_empty() && answers.health.is_none());
    }

    #[test]
    fn answered_ports_override_the_environment() {
        let answers = answers(&[
            (Key::Os, "debian/12\n", 0),
            (Key::Env, "A_PORT=1\n", 0),
            (Key::Ports, "2/udp\n", 0),
        ])
        .unwrap();
        let ports: Vec<_> = answers.exposed_ports().iter().map(Port::to_string).collect();
        assert_eq!(ports, ["2/udp"]);
    }

    #[rstest::rstest]
    #[case(&[], "`bin/query os` prints nothing and exits with 1: \"no such key\"")]
    #[case(&[(Key::Os, "debian/12\n", 1)], "`bin/query os` prints \"debian/12\" but exits with 1")]
    #[case(&[(Key::Os, "debian/12\n", 137)], "is killed by signal 9")]
    #[case(&[(Key::Version, "1\n", 0)], "unsupported version of the servicepack API")]
    #[case(&[(Key::Os, "debian/12\n", 0), (Key::Health, "usage: query\n", 2)], "`bin/query health` prints \"usage: query\" but exits with 2")]
    #[case(&[(Key::Os, "debian/12\n", 0), (Key::Env, "A=1\n", 0), (Key::Secrets, "A\n", 0)], "repeats the secret A")]
    fn invalid_answers_are_refused(#[case] table: &[(Key, &str, i32)], #[case] says: &str) {
        let error = answers(table).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::BadInput);
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn keys_are_parsed_as_they_are_printed() {
        for key in Key::ALL {
            assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        }
        let error = "nonsense".parse::<Key>().unwrap_err();
        assert!(error.hint_text().unwrap().contains("components"));
    }

    #[test]
    fn one_key_is_validated_and_formatted() {
        let answer = |stdout: &str| RawAnswer { stdout: stdout.into(), ..RawAnswer::default() };
        let show = |key, stdout| validate(key, &answer(stdout), SCRIPT);
        assert_eq!(show(Key::Ports, "80\n").unwrap(), ["80/tcp"]);
        assert_eq!(show(Key::Env, "A=1\nB=\n").unwrap(), ["A=1", "B="]);
        assert!(show(Key::Version, "").unwrap().is_empty());
        assert!(show(Key::Os, "").is_err());
        assert!(show(Key::Ports, "80\nx\n").is_err());
    }
}
