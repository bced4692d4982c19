//! How the health of a running service is watched, and what is known of it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::pack::query::HealthSettings;

/// The seconds between two checks if only another setting was given. These are podman's defaults.
const INTERVAL: u32 = 30;
/// The time limit of a check, in seconds.
pub(crate) const TIMEOUT: u32 = 30;
const RETRIES: u32 = 3;

/// How the health of a service is watched while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthWatch {
    /// The seconds between two checks.
    pub interval: u32,
    /// The time limit of a check, in seconds.
    pub timeout: u32,
    /// The number of failures in a row that make the service unhealthy.
    pub retries: u32,
    /// The seconds after a start in which failures don't count.
    pub start_period: u32,
    /// What to do when it is unhealthy.
    pub on_failure: OnUnhealthy,
}

/// What to do with an unhealthy service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnUnhealthy {
    /// Only report it.
    #[default]
    None,
    /// Restart its components.
    Restart,
}

impl HealthWatch {
    /// Combines the user's settings, which take precedence, with the pack's. `None` if nobody asks for a watch, or the
    /// user's interval is 0.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) for an interval of 0 with another setting of the user.
    pub(crate) fn combine(
        user: HealthSettings,
        on_failure: Option<OnUnhealthy>,
        pack: HealthSettings,
    ) -> Result<Option<HealthWatch>> {
        let others = HealthSettings { interval: None, ..user };
        let asks = on_failure.is_some() || others != HealthSettings::default();
        if user.interval == Some(0) {
            return match asks {
                false => Ok(None),
                true => Err(Error::usage("the other --health options need an interval")
                    .hint("give --health-interval SECONDS, at least 1")),
            };
        }
        let interval = user.interval.or(pack.interval).or(asks.then_some(INTERVAL));
        Ok(interval.map(|interval| HealthWatch {
            interval,
            timeout: user.timeout.or(pack.timeout).unwrap_or(TIMEOUT),
            retries: user.retries.or(pack.retries).unwrap_or(RETRIES),
            start_period: user.start_period.or(pack.start_period).unwrap_or(0),
            on_failure: on_failure.unwrap_or_default(),
        }))
    }
}

/// Why a service is unhealthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The reason.
    pub reason: String,
    /// The end of the health command's output, without secrets and control characters; empty if there is none.
    pub output: String,
}

impl Failure {
    pub(super) fn new(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), output: String::new() }
    }
}

/// The reason, and the last line of the output.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        match self.output.lines().last() {
            Some(line) => write!(f, ": {}", line.trim()),
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error.to_string())
    }
}

/// What is known of the health of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthStatus {
    /// The state.
    pub state: HealthState,
    /// The number of failures in a row.
    pub failures: u32,
    /// How often the service was restarted because it was unhealthy.
    pub restarts: u32,
    /// When it was last checked; seconds since 1970.
    pub checked: Option<i64>,
    /// Why the last check failed.
    pub reason: Option<String>,
    /// The end of the output of the last health command that failed.
    pub output: Option<String>,
}

/// The health of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthState {
    /// It has not been healthy since its start, and has time left.
    Starting,
    /// The last check succeeded, or too few have failed since.
    Healthy,
    /// Checks failed.
    Unhealthy,
}

impl HealthStatus {
    /// The status before the first check.
    pub(crate) fn starting() -> HealthStatus {
        HealthStatus {
            state: HealthState::Starting,
            failures: 0,
            restarts: 0,
            checked: None,
            reason: None,
            output: None,
        }
    }

    /// The status after a single check.
    pub(crate) fn of_check(failure: Option<&Failure>, at: i64) -> HealthStatus {
        let mut status = HealthStatus::starting();
        status.state =
            if failure.is_some() { HealthState::Unhealthy } else { HealthState::Healthy };
        status.failures = u32::from(failure.is_some());
        status.record(failure, at);
        status
    }

    /// Records the time of a check, and why it failed.
    pub(crate) fn record(&mut self, failure: Option<&Failure>, at: i64) {
        self.checked = Some(at);
        self.reason = failure.map(|failure| failure.reason.clone());
        self.output =
            failure.map(|failure| failure.output.clone()).filter(|output| !output.is_empty());
    }
}

impl std::fmt::Display for HealthState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            HealthState::Starting => "starting",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "unhealthy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_takes_precedence_and_nobody_asks_for_none() {
        let none = HealthSettings::default();
        let every = |interval| HealthSettings { interval: Some(interval), ..none };
        assert_eq!(HealthWatch::combine(none, None, none).unwrap(), None);
        assert_eq!(HealthWatch::combine(every(0), None, every(9)).unwrap(), None);
        let pack = HealthSettings { interval: Some(9), timeout: Some(4), ..none };
        let watch = HealthWatch::combine(every(5), None, pack).unwrap().unwrap();
        assert_eq!((watch.interval, watch.timeout, watch.retries), (5, 4, 3));
        let watch = HealthWatch::combine(none, Some(OnUnhealthy::Restart), none).unwrap().unwrap();
        assert_eq!((watch.interval, watch.on_failure), (INTERVAL, OnUnhealthy::Restart));
        assert!(HealthWatch::combine(every(0), Some(OnUnhealthy::Restart), none).is_err());
    }
}
