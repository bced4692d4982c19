//! Progress events as data. The library reports them; only the command line turns them into words.
//!
//! Each event serializes to a line of `--progress json`: docs/progress.md has the table.

mod note;
mod step;
mod warning;

use std::time::Duration;

use serde::{Serialize, Serializer};

pub use note::{BackupNote, ImageNote, Note, PortReason, ServiceNote};
pub use step::Step;
pub use warning::Warning;

/// An event worth reporting to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// A step of the work begins.
    Step(Step),
    /// The user should see it, but it changes nothing, such as a skipped socket.
    Note(Note),
    /// Something is probably not as the user means it.
    Warning(Warning),
    /// A blob's transfer goes on.
    Transfer(Transfer<'a>),
    /// A blob's transfer is complete.
    Transferred {
        /// Its digest.
        digest: &'a str,
    },
    /// A request to a registry failed, and is tried again after a delay.
    Retry(Retry),
    /// A piece of a script's output, as it came: not necessarily a whole line, nor UTF-8.
    #[serde(skip)]
    ScriptOutput(&'a [u8]),
}

/// How far the transfer of a blob is.
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
    /// Which attempt failed; the first is 1.
    pub attempt: u32,
    /// How many attempts there are at most.
    pub attempts: u32,
    /// How long until the next one.
    #[serde(rename = "delayMs", serialize_with = "milliseconds")]
    pub delay: Duration,
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Receives [`Event`]s. Called from several threads at once.
pub trait Reporter: Send + Sync {
    /// Takes one event; must not fail and should not block for long.
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

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event<'_>) {}
}

#[cfg(test)]
mod tests;
