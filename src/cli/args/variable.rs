//! Environment variables on the command line.

use std::str::FromStr;

use crate::error::{Error, Result};

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
        check_name(name).map_err(Error::usage)?;
        Ok(EnvArg { name: name.to_owned(), value })
    }
}

/// Checks a name that the user sets: the kernel, docker and Kubernetes take every name of printable ASCII without `=`.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let valid = !name.is_empty()
        && !name.starts_with('#')
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
    if valid { Ok(()) } else { Err(format!("invalid variable name: {name:?}")) }
}

impl EnvArg {
    /// Converts variables to pairs of name and value.
    pub(in crate::cli) fn pairs(args: &[EnvArg]) -> Vec<(String, String)> {
        args.iter().map(|arg| (arg.name.clone(), arg.value.clone())).collect()
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
        assert_eq!(of("discovery.type=x"), Some(("discovery.type".into(), "x".into())));
        assert_eq!(of("1A-B=x"), Some(("1A-B".into(), "x".into())));
        for text in ["", "=x", "A B=x", "#A=x", "\u{e4}=x", "SVP_NO_SUCH_VARIABLE"] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }
}
