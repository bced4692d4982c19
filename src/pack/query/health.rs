//! The answer to `health`: a command, and how to watch it.

use super::lines::{Line, Source, lines};
use crate::error::Result;

/// The longest time that a setting may name, in seconds: a day.
const MAX_SECONDS: u32 = 86_400;
/// The maximum number of failures in a row.
const MAX_RETRIES: u32 = 1000;

/// The answer to `health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// A command for `/bin/sh -c`.
    pub command: String,
    /// How to watch it.
    pub settings: HealthSettings,
}

/// How to watch the health of a service. Each setting is optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthSettings {
    /// The seconds between two checks; without it the service is not watched.
    pub interval: Option<u32>,
    /// The time limit of a check, in seconds.
    pub timeout: Option<u32>,
    /// The number of failures in a row that make the service unhealthy.
    pub retries: Option<u32>,
    /// The seconds after a start in which failures don't count.
    pub start_period: Option<u32>,
}

impl HealthSettings {
    /// The names of the settings, in the order of printing.
    const NAMES: [&str; 4] = ["interval", "timeout", "retries", "start-period"];

    fn values(&mut self) -> [&mut Option<u32>; 4] {
        [&mut self.interval, &mut self.timeout, &mut self.retries, &mut self.start_period]
    }
}

impl Health {
    /// Returns the lines of the answer.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        let values = self.settings.values();
        let settings = HealthSettings::NAMES.into_iter().zip(values);
        let settings =
            settings.filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        std::iter::once(self.command.clone()).chain(settings.collect::<Vec<_>>()).collect()
    }
}

/// Parses `query health`: a command that `/bin/sh -c` runs in `/service` in the running container, where exit code 0
/// means healthy; then optionally `interval=`, `timeout=`, `retries=` and `start-period=`, one per line, with a number.
/// `None` if the pack has no health check.
pub fn parse_health(output: &[u8], script: &str) -> Result<Option<Health>> {
    let lines = lines(Source { script, key: "health" }, output)?;
    let Some((command, rest)) = lines.split_first() else { return Ok(None) };
    if command.text.trim().is_empty() {
        return Err(command.bad("empty command"));
    }
    let mut settings = HealthSettings::default();
    for line in rest {
        set(&mut settings, line)?;
    }
    Ok(Some(Health { command: command.text.to_owned(), settings }))
}

fn set(settings: &mut HealthSettings, line: &Line<'_>) -> Result<()> {
    let found = line.text.split_once('=').and_then(|(name, value)| {
        let number = HealthSettings::NAMES.iter().position(|known| *known == name)?;
        Some((number, value))
    });
    let Some((number, value)) = found else {
        return Err(line
            .bad(
                "only one command is expected, then interval=, timeout=, retries= or start-period=",
            )
            .hint("join commands with && or put them into a script"));
    };
    let slot = settings.values().into_iter().nth(number);
    let Some(slot) = slot.filter(|slot| slot.is_none()) else { return Err(line.bad("duplicate")) };
    let most = if HealthSettings::NAMES[number] == "retries" { MAX_RETRIES } else { MAX_SECONDS };
    let plain = value.bytes().all(|b| b.is_ascii_digit()) && !value.starts_with('0');
    let parsed = value.parse::<u32>().ok().filter(|n| plain && (1..=most).contains(n));
    *slot = Some(parsed.ok_or_else(|| line.bad(format_args!("not a number from 1 to {most}")))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_and_its_settings() {
        let parse = |text: &str| parse_health(text.as_bytes(), "bin/query");
        assert_eq!(parse("").unwrap(), None);
        let alone = parse("ping -c 1 a=b\n").unwrap().unwrap();
        assert_eq!(alone.settings, HealthSettings::default());
        let text = "ping\ninterval=30\ntimeout=5\nretries=2\nstart-period=60";
        let all = parse(text).unwrap().unwrap();
        assert_eq!(all.settings.interval, Some(30));
        assert_eq!(all.settings.start_period, Some(60));
        assert_eq!(all.into_lines().join("\n"), text);
        for (text, says) in [
            (" \ninterval=3\n", "empty command"),
            ("a\nb\n", "line 2"),
            ("a\ninterval=0\n", "not a number from 1 to 86400"),
            ("a\ninterval=5s\n", "not a number"),
            ("a\ninterval=05\n", "not a number"),
            ("a\ninterval=86401\n", "not a number"),
            ("a\nretries=1001\n", "1 to 1000"),
            ("a\nInterval=5\n", "only one command"),
            ("a\ninterval =5\n", "only one command"),
            ("a\nretries=5\nretries=6\n", "line 3"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(says), "{text:?}: {error}");
        }
    }
}
