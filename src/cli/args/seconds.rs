//! Durations on the command line.

use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// A number of seconds: `60` or `60s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Seconds(pub(in crate::cli) Duration);

impl FromStr for Seconds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.strip_suffix('s').unwrap_or(text);
        let seconds = digits.parse().map_err(|_| {
            Error::usage(format!("invalid number of seconds: {text}")).hint("write 60 or 60s")
        })?;
        Ok(Seconds(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds() {
        for (text, seconds) in [("60", 60), ("5s", 5), ("0", 0)] {
            assert_eq!(text.parse::<Seconds>().unwrap(), Seconds(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "-1", "1m", "1.5"] {
            assert!(text.parse::<Seconds>().is_err(), "{text:?}");
        }
    }
}
