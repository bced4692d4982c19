//! Progress events as data. The library reports them; only the command line formats them as text.
//!
//! Each event serializes to a line of `--progress json`: docs/progress.md has the table.

mod note;
mod slow;
mod step;
mod warning;

use std::time::Duration;

use serde::{Serialize, Serializer};

pub use note::{BackupNote, ImageNote, Note, PortReason, ServiceNote};
pub use slow::announce_if_slow;
pub use step::Step;
pub use warning::Warning;

/// An event worth reporting to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// A step of the work begins.
    Step(Step),
    /// A fact that the user should know and that is not a fault, such as a skipped socket.
    Note(Note),
    /// A condition that the user probably does not intend.
    Warning(Warning),
    /// A blob's transfer has progressed.
    Transfer(Transfer<'a>),
    /// A blob's transfer is complete.
    Transferred {
        /// Its digest.
        digest: &'a str,
    },
    /// Bytes of a backup were written or read.
    BackupProgress(BackupProgress<'a>),
    /// A request to a registry failed and is retried after a delay.
    Retry(Retry),
    /// A piece of a script's output, verbatim: not necessarily whole lines or UTF-8.
    #[serde(skip)]
    ScriptOutput(&'a [u8]),
}

/// The progress of a blob's transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer<'a> {
    /// The blob's digest.
    pub digest: &'a str,
    /// Its direction.
    pub direction: Direction,
    /// Bytes done so far.
    pub done: u64,
    /// Total bytes, if known.
    pub total: Option<u64>,
}

/// The progress of a backup or a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackupProgress<'a> {
    /// The service.
    pub service: &'a str,
    /// Whether a backup is written or read.
    pub direction: BackupDirection,
    /// Bytes done so far: of a new backup before compression, of one that is read as it is stored.
    pub done: u64,
    /// Total bytes, if known.
    pub total: Option<u64>,
    /// Whether this is the last event of this backup.
    pub finished: bool,
}

/// Whether a backup is written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupDirection {
    /// It is written.
    Backup,
    /// It is read.
    Restore,
}

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Into the store.
    Pull,
    /// To a registry.
    Push,
}

/// A failed attempt that is not the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// The message of the error.
    pub reason: String,
    /// The number of the failed attempt, from 1.
    pub attempt: u32,
    /// The maximum number of attempts.
    pub attempts: u32,
    /// The delay before the next attempt.
    #[serde(rename = "delayMs", serialize_with = "milliseconds")]
    pub delay: Duration,
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Receives [`Event`]s. Called from several threads at once.
pub trait Reporter: Send + Sync {
    /// Receives one event; must not fail and should not block for long.
    fn event(&self, event: Event<'_>);

    /// Shorthand for [`Event::Step`].
    fn step(&self, step: Step) {
        self.event(Event::Step(step));
    }

    /// Shorthand for [`Event::Note`].
    fn note(&self, note: Note) {
        self.event(Event::Note(note));
    }

    /// Shorthand for [`Event::Warning`].
    fn warning(&self, warning: Warning) {
        self.event(Event::Warning(warning));
    }
}

/// Discards every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event<'_>) {}
}

#[cfg(test)]
mod tests;
