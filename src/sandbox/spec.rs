//! The command to run and its container: plain data, created by svp and executed by stages.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command and the container to run it in.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RunSpec {
    /// The root file system.
    pub rootfs: Rootfs,
    /// The command and its arguments; the command is an absolute path in the container.
    pub argv: Vec<String>,
    /// The whole environment, in this order.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute in the container.
    pub cwd: String,
    /// The host name, also in /etc/hosts.
    pub hostname: String,
    /// The network.
    pub network: Network,
    /// Whether set-id programs and file capabilities give the command nothing (`no_new_privs`): no query needs them.
    pub no_new_privs: bool,
}

// Prints the names of variables only: the values may be secrets.
impl std::fmt::Debug for RunSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunSpec")
            .field("rootfs", &self.rootfs)
            .field("argv", &self.argv)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// The root file system of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Rootfs {
    /// An overlay: unpacked layers as lower directories, a build directory with the upper one.
    Layers(Overlay),
    /// The host's programs, read-only, and a pack at /service; nothing else of the host. The pack is a tar, read from a
    /// descriptor that is sent with the request.
    HostTools,
}

/// The directories of an overlay, relative to the layer store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// Unpacked layers, the topmost first.
    pub lowers: Vec<String>,
    /// The directory that holds the upper directory, the work directory and the mount point; created on demand.
    pub dir: String,
    /// Whether writes must survive a crash of the host.
    pub durable: bool,
}

/// A bind mount: a file or directory made visible in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// The source: a path of the host, or one relative to the layer store.
    pub source: PathBuf,
    /// The destination, absolute in the container; created if it is missing.
    pub at: String,
    /// Whether the mount is read-only.
    pub read_only: bool,
}

/// A line of a container's /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostsEntry {
    /// The address.
    pub address: std::net::IpAddr,
    /// The names that resolve to it.
    pub names: Vec<String>,
}

/// The network of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Network {
    /// A private network, connected by pasta; if pasta fails, what the user has chosen instead.
    #[serde(rename = "Auto")]
    Private,
    /// The host's network.
    Host,
    /// A private loopback interface only.
    None,
}

/// The host addresses that are reachable from a private network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostAccess {
    /// Whether the gateway is reachable.
    pub gateway: bool,
    /// Whether the host's loopback is reachable, at a link-local address.
    pub host: bool,
}

/// Limits of a command.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// How long it may run.
    pub time: Option<Duration>,
    /// How much it may print on standard output and standard error together; bytes.
    pub output: Option<u64>,
    /// The memory of all its processes; bytes.
    pub memory: Option<Bound>,
    /// The number of its processes and threads.
    pub pids: Option<Bound>,
    /// The size of its /dev/shm; bytes.
    pub shm: Option<u64>,
}

/// A limit, and how it is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Requested by the user: the kernel enforces it for all processes together, or the command does not start.
    Strict(u64),
    /// A default, for which no cgroup is needed: svp watches the processes.
    Watched(u64),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// Exited with this code.
    Exited(i32),
    /// Killed by this signal.
    Signaled(i32),
    /// Killed because it exceeded its time limit.
    TimedOut,
    /// Killed because it exceeded its output limit.
    TooMuchOutput,
}

/// How a command ended, and what does not outlive its container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunEnd {
    /// How it ended.
    pub end: End,
    /// The changed files that svp provides, such as /etc/hosts: no image contains them.
    pub dropped: Vec<String>,
    /// The limits that it reached.
    pub reached: Reached,
}

/// The limits that a command reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// The number of its processes that the kernel killed for their memory.
    pub memory_kills: u64,
    /// Whether it was refused a process or a thread.
    pub pids: bool,
    /// The limit for which svp killed it.
    pub killed_for: Option<Watched>,
}

/// A limit that svp watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Watched {
    /// The number of processes and threads.
    Pids,
    /// Memory.
    Memory,
}

impl From<End> for RunEnd {
    fn from(end: End) -> Self {
        RunEnd { end, dropped: Vec::new(), reached: Reached::default() }
    }
}

/// Names one of a command's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
