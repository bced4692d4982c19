//! Output formats of an instance's environment.

use std::borrow::Cow;

use clap::ValueEnum;

use crate::error::{Error, Result};

/// Output format of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EnvFormat {
    /// One NAME=VALUE per line, as --env-file reads it: a value that has several lines or begins with a quote is quoted
    Dotenv,
    /// One JSON object
    Json,
    /// export NAME='VALUE', for a shell to read
    Shell,
}

/// Formats an environment.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if a shell can't have a variable of some name; it could be a command.
pub(in crate::cli) fn environment_text(
    environment: &[(String, String)],
    format: EnvFormat,
) -> Result<String> {
    let text = match format {
        EnvFormat::Dotenv => {
            environment.iter().map(|(name, value)| format!("{name}={}\n", dotenv(value))).collect()
        }
        EnvFormat::Shell => {
            if let Some((name, _)) = environment.iter().find(|(name, _)| !is_shell_name(name)) {
                return Err(Error::usage(format!("a shell can't have a variable named {name:?}"))
                    .hint("choose the format json or dotenv"));
            }
            let line = |(name, value): &(String, String)| {
                format!("export {name}='{}'\n", value.replace('\'', r"'\''"))
            };
            environment.iter().map(line).collect()
        }
        EnvFormat::Json => {
            let pairs = environment.iter().map(|(n, v)| (n.clone(), v.clone().into()));
            let map: serde_json::Map<String, serde_json::Value> = pairs.collect();
            format!("{:#}\n", serde_json::Value::Object(map))
        }
    };
    Ok(text)
}

fn is_shell_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Formats a value for an env file: as it is where docker reads it so too, else in double quotes.
fn dotenv(value: &str) -> Cow<'_, str> {
    if !value.starts_with(['"', '\'']) && !value.contains(['\n', '\r']) {
        return value.into();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '"' | '\\' | '$' | '`' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push('"');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let env = vec![("B".to_owned(), "it's".to_owned()), ("A".to_owned(), "%IP".to_owned())];
        assert_eq!(environment_text(&env, EnvFormat::Dotenv).unwrap(), "B=it's\nA=%IP\n");
        let shell = "export B='it'\\''s'\nexport A='%IP'\n";
        assert_eq!(environment_text(&env, EnvFormat::Shell).unwrap(), shell);
        let json: serde_json::Value =
            serde_json::from_str(&environment_text(&env, EnvFormat::Json).unwrap()).unwrap();
        assert_eq!(json["B"], "it's");
    }

    #[rstest::rstest]
    #[case("discovery.type")]
    #[case("A-B")]
    #[case("1A")]
    #[case("A;reboot")]
    #[case("$(reboot)")]
    #[case("A\nB")]
    #[case("")]
    fn a_shell_gets_no_name_that_it_would_run(#[case] name: &str) {
        let env = [("A".to_owned(), "1".to_owned()), (name.to_owned(), "x".to_owned())];
        let error = environment_text(&env, EnvFormat::Shell).unwrap_err();
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        let json = environment_text(&env, EnvFormat::Json).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[name], "x");
    }

    #[test]
    fn a_value_that_another_line_could_follow_is_quoted() {
        let text = |value: &str| {
            let env = [("A".to_owned(), value.to_owned())];
            environment_text(&env, EnvFormat::Dotenv).unwrap()
        };
        assert_eq!(text("a 'b' \"c\" $d # \\n"), "A=a 'b' \"c\" $d # \\n\n");
        assert_eq!(text("x\nLD_PRELOAD=y"), "A=\"x\\nLD_PRELOAD=y\"\n");
        assert_eq!(text("\"$x\""), "A=\"\\\"\\$x\\\"\"\n");
        assert_eq!(text("'x'"), "A=\"'x'\"\n");
    }
}
