//! Options for watching the health of a service.

use clap::ValueEnum;

use super::seconds::Seconds;
use super::value::parsed;
use crate::error::{Error, Result};
use crate::pack::query::HealthSettings;
use crate::service::health_watch::OnUnhealthy;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HealthArgs {
    /// Check its health every SECONDS while it runs; 0 is never [default: `query health`, else never]
    #[arg(long, value_name = "SECONDS", value_parser = parsed::<Seconds>)]
    health_interval: Option<Seconds>,
    /// Time limit of a check [default: `query health`, else 30]
    #[arg(long, value_name = "SECONDS", value_parser = parsed::<Seconds>)]
    health_timeout: Option<Seconds>,
    /// Failures in a row after which it is unhealthy [default: `query health`, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    health_retries: Option<u32>,
    /// Seconds after a start in which failures don't count [default: `query health`, else the interval]
    #[arg(long, value_name = "SECONDS", value_parser = parsed::<Seconds>)]
    health_start_period: Option<Seconds>,
    /// When it is unhealthy: only report it, or restart its components [default: none]
    #[arg(long, value_enum, value_name = "none|restart", hide_possible_values = true)]
    health_on_failure: Option<OnFailureArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnFailureArg {
    None,
    Restart,
}

impl HealthArgs {
    /// Returns the settings, and what to do with an unhealthy service.
    pub(in crate::cli) fn settings(&self) -> Result<(HealthSettings, Option<OnUnhealthy>)> {
        let settings = HealthSettings {
            interval: number("--health-interval", self.health_interval, 0)?,
            timeout: number("--health-timeout", self.health_timeout, 1)?,
            retries: self.health_retries,
            start_period: number("--health-start-period", self.health_start_period, 0)?,
        };
        let on_failure = self.health_on_failure.map(|on_failure| match on_failure {
            OnFailureArg::None => OnUnhealthy::None,
            OnFailureArg::Restart => OnUnhealthy::Restart,
        });
        Ok((settings, on_failure))
    }
}

/// Returns a number of seconds from `least` to a day.
fn number(option: &str, seconds: Option<Seconds>, least: u64) -> Result<Option<u32>> {
    let Some(Seconds(duration)) = seconds else { return Ok(None) };
    let seconds = duration.as_secs();
    match u32::try_from(seconds) {
        Ok(number) if (least..=86_400).contains(&seconds) => Ok(Some(number)),
        _ => Err(Error::usage(format!("{option} takes {least} to 86400 seconds"))),
    }
}
