//! What to run, and in what: plain data, made on the host's side and carried out behind its back.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command and the container to run it in.
#[derive(Clone, Serialize, Deserialize)]
pub struct RunSpec {
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
}

// The environment has secrets in it.
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
pub enum Rootfs {
    /// An overlay: unpacked layers below, a build directory for what changes above.
    Layers(Overlay),
    /// The host's programs, read-only, and a pack at /service; nothing else of the host.
    /// The pack arrives as a tar on the descriptor that goes with the request.
    HostTools,
}

/// The directories of an overlay, relative to the layer store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overlay {
    /// Unpacked layers, the topmost first.
    pub lowers: Vec<String>,
    /// The place that has, or will have, the upper directory and all that goes with it.
    pub dir: String,
    /// Whether what is written must outlive a crash of the host.
    pub durable: bool,
}

/// A file or directory that a container shows at a place of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// What: a path of the host, or one relative to the layer store.
    pub source: PathBuf,
    /// Where, absolute in the container; made if it isn't there.
    pub at: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// The network of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A network of its own, connected by pasta; the host's if that can't be had, with a note.
    #[serde(rename = "Auto")]
    Private,
    /// The host's.
    Host,
    /// A loopback interface alone.
    None,
}

/// What of the host a private network leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAccess {
    /// The gateway.
    pub gateway: bool,
    /// The host's loopback, at an address of its own.
    pub host: bool,
}

/// What bounds a command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// How long it may run.
    pub time: Option<Duration>,
    /// How many bytes it may print on standard output and standard error together.
    pub output: Option<u64>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// Killed: it ran longer than it may.
    TimedOut,
    /// Killed: it printed more than it may.
    TooMuchOutput,
}

/// Which of a command's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
