//! Retries with exponential back-off.

use std::time::{Duration, SystemTime};

use log::debug;
use rand::RngExt as _;

use super::fault::{Fault, Retry};
use super::options::ClientOptions;
use crate::error::Result;
use crate::progress::{Event, Retry as Retried};

/// Runs `attempt` until it succeeds, fails permanently, or `options.retries` retries have failed.
pub(super) fn run<T>(
    options: &ClientOptions,
    mut attempt: impl FnMut() -> Result<T, Fault>,
) -> Result<T> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(fault) => pause(options, fault, &mut failures)?,
        }
    }
}

/// Counts a failure and sleeps before the next attempt.
///
/// # Errors
/// The fault's error, if it is permanent, there are too many failures, or the server asks for a longer pause than
/// `options.longest_wait`.
pub(super) fn pause(options: &ClientOptions, fault: Fault, failures: &mut u32) -> Result<()> {
    let Retry::After(asked) = fault.retry else {
        return Err(fault.into_error());
    };
    if *failures >= options.retries {
        let attempts = *failures + 1;
        return Err(fault.into_error().context(format!("given up after {attempts} attempts")));
    }
    if let Some(asked) = asked.filter(|asked| *asked > options.longest_wait) {
        let (asked, most) = (asked.as_secs(), options.longest_wait.as_secs());
        let error = fault.into_error();
        return Err(error.context(format!(
            "the server asks to wait for {asked} s, and svp waits for at most {most} s"
        )));
    }
    let wait = delay(options, *failures, asked);
    *failures += 1;
    let (attempt, attempts, error) = (*failures, options.retries + 1, &fault.error);
    debug!("attempt {attempt} of {attempts} failed ({error}): retrying in {wait:.1?}");
    if let Some(reporter) = &options.reporter {
        reporter.event(Event::Retry(Retried {
            reason: fault.error.to_string(),
            attempt,
            attempts,
            delay: wait,
        }));
    }
    std::thread::sleep(wait);
    Ok(())
}

/// Returns the pause before the next attempt. It doubles from `options.backoff`, with jitter, so that clients don't
/// retry in step; a longer `Retry-After` takes precedence.
fn delay(options: &ClientOptions, failures: u32, asked: Option<Duration>) -> Duration {
    let doubled = options.backoff.saturating_mul(1 << failures.min(16));
    let jitter: f64 = rand::rng().random_range(0.5..1.0);
    let own = doubled.min(options.longest_wait).mul_f64(jitter);
    asked.map_or(own, |asked| asked.max(own))
}

/// Parses `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3).
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A value that overflows is capped later anyway.
        return Some(Duration::from_secs(value.parse().unwrap_or(u32::MAX.into())));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let cases = [
            ("0", Some(0)),
            (" 12 ", Some(12)),
            ("99999999999999999999999", Some(u64::from(u32::MAX))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1993 08:49:37 GMT", None),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("soon", None),
            ("-3", None),
            ("", None),
        ];
        for (value, seconds) in cases {
            assert_eq!(parse_retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn waits_grow_and_are_capped() {
        let options = ClientOptions {
            backoff: Duration::from_millis(100),
            longest_wait: Duration::from_secs(1),
            ..ClientOptions::isolated()
        };
        for (failures, asked, least, most) in [
            (0, None, 50, 100),
            (1, None, 100, 200),
            (30, None, 500, 1000),
            (0, Some(700), 700, 700),
            (0, Some(10), 50, 100),
        ] {
            let wait = delay(&options, failures, asked.map(Duration::from_millis)).as_millis();
            assert!((least..=most).contains(&wait), "{failures} {asked:?}: {wait}");
        }
    }
}
