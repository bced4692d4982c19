//! The health of a service, and durations, in words.

use crate::service::health_watch::{HealthStatus, HealthWatch, OnUnhealthy};
use crate::service::status::now;

/// Formats the health for `ps`: with its age if nothing watches the service.
pub(super) fn short(health: Option<&HealthStatus>, watched: bool) -> String {
    let Some(health) = health else { return "-".to_owned() };
    match health.checked.map(|at| now() - at).filter(|_| !watched) {
        Some(age @ 2..) => format!("{} {} ago", health.state, span(age)),
        _ => health.state.to_string(),
    }
}

/// Formats the health for `info`.
pub(super) fn long(health: &HealthStatus) -> String {
    let mut text = health.state.to_string();
    if let Some(at) = health.checked {
        text += &format!(", checked {} ago", span(now() - at));
    }
    if health.failures > 0 {
        text += &format!(", failures in a row: {}", health.failures);
    }
    if health.restarts > 0 {
        text += &format!(", restarts for its health: {}", health.restarts);
    }
    if let Some(reason) = &health.reason {
        text += &format!(": {reason}");
    }
    text
}

/// Formats the settings of a watch.
pub(super) fn watch(watch: &HealthWatch) -> String {
    let HealthWatch { interval, timeout, retries, start_period, on_failure } = watch;
    let mut text =
        format!("every {interval} s, at most {timeout} s; unhealthy after {retries} failures");
    if *start_period > 0 {
        text += &format!(", not counted for {start_period} s");
    }
    if *on_failure == OnUnhealthy::Restart {
        text += "; then restarted";
    }
    text
}

/// Formats a duration in one unit; `seconds` is negative if the clock was set back.
pub(super) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}
