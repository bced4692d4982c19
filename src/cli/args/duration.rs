//! Time limits on the command line.

use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// The longest time limit: a year.
const MOST: f64 = 366.0 * 86400.0;

/// A time limit: seconds, or numbers with units, as systemd.time(7) writes them: `90`, `90s`, `10m`, `1h 30min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeLimit(pub(super) Duration);

impl FromStr for TimeLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let seconds = seconds(text).filter(|seconds| *seconds > 0.0 && *seconds <= MOST);
        seconds.map(|seconds| TimeLimit(Duration::from_secs_f64(seconds))).ok_or_else(|| {
            Error::usage(format!("invalid time limit: {text:?}"))
                .hint("write seconds, or a time such as 90s, 10m, 2h or 1h30m; omit the option for no limit")
        })
    }
}

fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut sum = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ms" | "msec" => 0.001,
            "s" | "sec" | "second" | "seconds" => 1.0,
            // A number without a unit is a time of its own.
            "" if number.len() == text.trim().len() => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            _ => return None,
        };
        let plain = number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.');
        sum += number.parse::<f64>().ok().filter(|_| plain)? * unit;
        rest = after.trim_start();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits() {
        let good = [
            ("90", 90_000),
            ("90s", 90_000),
            ("10m", 600_000),
            ("10min", 600_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1h 30min", 5_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("0.5", 500),
            ("1d", 86_400_000),
        ];
        for (text, millis) in good {
            let limit = text.parse::<TimeLimit>().unwrap();
            assert_eq!(limit, TimeLimit(Duration::from_millis(millis)), "{text}");
        }
        let bad = [
            "",
            "s",
            "0",
            "0s",
            "-1",
            "+1",
            "1x",
            "1h30",
            "1 2",
            "1.s",
            ".5",
            "1e3",
            "inf",
            "NaN",
            "1M",
            "99999999999999999999",
            "1,5",
        ];
        for text in bad {
            assert!(text.parse::<TimeLimit>().is_err(), "{text:?}");
        }
    }
}
