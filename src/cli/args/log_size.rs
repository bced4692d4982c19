//! The size of a log.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::sandbox::memory_amount;

/// A megabyte, the unit of a plain number.
const MEGABYTE: u64 = 1_000_000;

/// The size of a log, in bytes: a plain number of megabytes, or an amount with a suffix as `--memory` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct LogSize(pub(in crate::cli) u64);

impl FromStr for LogSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = match text.parse::<u64>() {
            Ok(megabytes) if plain => megabytes.saturating_mul(MEGABYTE),
            _ => memory_amount(text).unwrap_or(0),
        };
        match (MEGABYTE..=100_000 * MEGABYTE).contains(&bytes) {
            true => Ok(LogSize(bytes)),
            false => Err(Error::usage(format!("invalid size of a log: {text:?}"))
                .hint("give a number of MB from 1 to 100000, or an amount such as 16m or 1.5g")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_logs() {
        for (text, bytes) in [
            ("1", 1_000_000),
            ("16", 16_000_000),
            ("100000", 100_000_000_000),
            ("16m", 16 << 20),
            ("16M", 16 << 20),
            ("1.5g", 3 << 29),
            ("2048k", 2 << 20),
            ("16mb", 16 << 20),
            ("16MiB", 16 << 20),
        ] {
            assert_eq!(text.parse::<LogSize>().unwrap(), LogSize(bytes), "{text}");
        }
        for text in
            ["", "0", "-1", "+1", "16q", "1.5", "512k", "1t", "100001", "99999999999999999999"]
        {
            assert!(text.parse::<LogSize>().is_err(), "{text:?}");
        }
    }
}
