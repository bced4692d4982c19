//! Environment variables on the command line and in environment files.

use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, IoContext, Result};

/// An environment variable: `NAME=VALUE`, or `NAME` for its value in svp's own environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct EnvArg {
    pub(in crate::cli) name: String,
    pub(in crate::cli) value: String,
}

impl FromStr for EnvArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match std::env::var(text) {
                Ok(value) => (text, value),
                Err(_) => {
                    return Err(Error::usage(format!("{text} is not set; write {text}=VALUE")));
                }
            },
        };
        let valid = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match valid {
            true => Ok(EnvArg { name: name.to_owned(), value }),
            false => Err(Error::usage(format!("invalid variable name: {name:?}"))),
        }
    }
}

impl EnvArg {
    /// Converts variables to pairs of name and value.
    pub(in crate::cli) fn pairs(args: &[EnvArg]) -> Vec<(String, String)> {
        args.iter().map(|arg| (arg.name.clone(), arg.value.clone())).collect()
    }

    /// Reads variables from a file, one per line; skips empty lines and lines that begin with `#`.
    pub(in crate::cli) fn read_file(path: &Path) -> Result<Vec<EnvArg>> {
        let text = std::fs::read_to_string(path).io("read", path)?;
        let mut args = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let arg = line.parse::<EnvArg>();
            args.push(arg.map_err(|error| {
                error.context(format!("{}, line {}", path.display(), number + 1))
            })?);
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let of = |text: &str| text.parse::<EnvArg>().map(|arg| (arg.name, arg.value)).ok();
        assert_eq!(of("A=b=c"), Some(("A".into(), "b=c".into())));
        assert_eq!(of("_a1="), Some(("_a1".into(), String::new())));
        for text in ["", "=x", "1A=x", "A-B=x", "SVP_NO_SUCH_VARIABLE"] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }
}
