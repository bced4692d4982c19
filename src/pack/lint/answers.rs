//! Checks the pack's answers to `bin/query`.

use super::{Key, Problems, QueryRunner, Severity};
use crate::error::Kind;
use crate::pack::query::{
    EnvVar, RawAnswer, SCRIPT, parse_env, parse_ports, parse_secrets, ports_from_env, run_query,
    validate,
};

/// Queries every key and reports each invalid answer.
pub(super) fn check(runner: &mut QueryRunner<'_>, problems: &mut Problems) {
    let (mut secrets, mut env, mut ports) = (None, None, None);
    for key in Key::ALL {
        let answer = match run_query(runner, key) {
            Ok(answer) => answer,
            Err(error) => {
                problems.error(SCRIPT, &error);
                // Stop: without a sandbox every key fails in the same way, and an interrupt ends the command.
                if matches!(error.kind(), Kind::Sandbox | Kind::Interrupted) {
                    return;
                }
                continue;
            }
        };
        if let Err(error) = validate(key, &answer, SCRIPT) {
            problems.error(SCRIPT, &error);
            continue;
        }
        match key {
            Key::Secrets => secrets = parsed(&answer, parse_secrets),
            Key::Env => env = parsed(&answer, parse_env),
            Key::Ports => ports = parsed(&answer, parse_ports),
            _ => {}
        }
    }
    let env = env.unwrap_or_default();
    repeated_secrets(&secrets.unwrap_or_default(), &env, problems);
    unknown_placeholders(&env, problems);
    if ports.is_some_and(|ports| ports.is_empty()) && ports_from_env(&env).is_empty() {
        let what = "`query ports` prints nothing, and no env variable is named PORT or *_PORT";
        let hint = "the image will expose the base image's ports, if any";
        problems.add(Severity::Note, SCRIPT, what, hint);
    }
}

fn parsed<T>(
    answer: &RawAnswer,
    parse: impl Fn(&[u8], &str) -> crate::error::Result<T>,
) -> Option<T> {
    parse(&answer.stdout, SCRIPT).ok()
}

/// Reports each secret that `query env` repeats.
fn repeated_secrets(secrets: &[String], env: &[EnvVar], problems: &mut Problems) {
    for var in env.iter().filter(|var| secrets.contains(&var.name)) {
        let what = format!("`{SCRIPT} env` repeats the secret {}", var.name);
        let hint = "remove the name from `query env`: svp generates the secret's value";
        problems.add(Severity::Error, SCRIPT, what, hint);
    }
}

/// Reports each unknown placeholder `%KEY`, which svp does not replace.
fn unknown_placeholders(env: &[EnvVar], problems: &mut Problems) {
    for var in env {
        for key in unknown_keys(&var.value) {
            let what =
                format!("`{SCRIPT} env`: {} contains {key}, which svp does not replace", var.name);
            let hint = "the only placeholder is %IP, the container's address";
            problems.add(Severity::Warning, SCRIPT, what, hint);
        }
    }
}

/// Returns the unknown placeholders: `%` and a word in capitals. Ignores `%` and two hexadecimal digits, which
/// encode a byte of a URL.
pub(super) fn unknown_keys(value: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = Vec::new();
    for (at, _) in value.match_indices('%') {
        let rest = &value[at + 1..];
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        let capital = word.starts_with(|c: char| c.is_ascii_uppercase());
        let lower = word.contains(|c: char| c.is_ascii_lowercase());
        let encoded = word.get(..2).is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        if capital && !lower && !encoded && word.len() > 1 && word != "IP" {
            out.push(&value[at..=at + word.len()]);
        }
    }
    out
}
