//! The signal that asks a service to stop.

use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// A signal's number. The default is SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopSignal(pub i32);

impl Default for StopSignal {
    fn default() -> Self {
        StopSignal(libc::SIGTERM)
    }
}

/// Parses a number, or a name with or without `SIG`.
impl FromStr for StopSignal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.parse::<i32>().ok().filter(|n| (1..=64).contains(n));
        let upper = text.to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        let named = || name.parse::<Signal>().ok().map(|signal| signal as i32);
        let number = number.or_else(named);
        number.map(StopSignal).ok_or_else(|| Error::usage(format!("unknown signal: {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in [("9", 9), ("SIGTERM", 15), ("term", 15), ("SIGQUIT", 3)] {
            assert_eq!(text.parse::<StopSignal>().unwrap(), StopSignal(number));
        }
        for text in ["", "0", "99", "SIGNOTHING"] {
            assert!(text.parse::<StopSignal>().is_err(), "{text:?}");
        }
    }
}
