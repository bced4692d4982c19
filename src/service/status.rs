//! The state of a service, as last written by its monitor.

use serde::{Deserialize, Serialize};

use super::health_watch::HealthStatus;
use super::process::Process;
use crate::sandbox::{End, Network};

/// The status of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The state.
    #[serde(rename = "standing")]
    pub state: State,
    /// The PID of its monitor.
    pub monitor: Option<u32>,
    /// The container's init, as a PID of the host.
    #[serde(rename = "process1")]
    pub init_pid: Option<u32>,
    /// The init of its last container, which may outlive the service: killed processes take time to exit.
    #[serde(default)]
    pub container: Option<Process>,
    /// When it was last started; seconds since 1970.
    pub started: Option<i64>,
    /// When it ended.
    pub ended: Option<i64>,
    /// Its exit code, as a shell reports it.
    pub exit_code: Option<i32>,
    /// Why it failed, or what fails at present.
    pub error: Option<String>,
    /// The network that it has.
    pub network: Option<Network>,
    /// Number of OOM kills since its last start.
    #[serde(default)]
    pub memory_kills: u64,
    /// Its health, if it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// Its components.
    pub components: Vec<ComponentStatus>,
}

/// The state of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It was never started.
    Created,
    /// Its container is being created.
    Starting,
    /// It runs.
    Running,
    /// A stop was requested.
    Stopping,
    /// It has ended, or was stopped.
    Exited,
    /// Its monitor was killed, and the service with it.
    Dead,
}

/// The status of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComponentStatus {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
    /// How often it was restarted.
    pub restarts: u32,
    /// How it last ended.
    pub end: Option<End>,
    /// Whether the last request to stop or restart it had to kill it, because its time was over.
    #[serde(default)]
    pub killed: bool,
    /// When it last started or ended; seconds since 1970.
    pub since: i64,
}

impl Status {
    /// Whether anything of the service has ever run.
    pub(crate) fn ran(&self) -> bool {
        self.components.iter().any(|component| component.running || component.end.is_some())
    }
}

impl State {
    /// Whether the state is valid only while a monitor is alive.
    pub(crate) fn needs_monitor(self) -> bool {
        matches!(self, State::Created | State::Starting | State::Running | State::Stopping)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            State::Created => "created",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Exited => "exited",
            State::Dead => "dead",
        })
    }
}

impl Status {
    /// The status of a service that never ran.
    pub(crate) fn new(components: &[String]) -> Status {
        let component = |name: &String| ComponentStatus {
            name: name.clone(),
            running: false,
            restarts: 0,
            end: None,
            killed: false,
            since: now(),
        };
        Status {
            state: State::Created,
            monitor: None,
            init_pid: None,
            container: None,
            started: None,
            ended: None,
            exit_code: None,
            error: None,
            network: None,
            memory_kills: 0,
            health: None,
            components: components.iter().map(component).collect(),
        }
    }
}

/// The current time; seconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Returns the exit code that a shell reports.
pub(crate) fn shell_code(end: End) -> i32 {
    match end {
        End::Exited(code) => code,
        End::Signaled(signal) => 128 + signal,
        End::TimedOut | End::TooMuchOutput => 137,
    }
}
