//! What the library tells of its work. The library reports; only the command line draws.

/// One thing worth telling the user while work goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A step of the pipeline begins, such as "pulling docker.io/library/debian:12".
    Step(&'a str),
    /// A note that the user should see but that changes nothing, such as a skipped socket.
    Note(&'a str),
    /// Something is probably not as the user means it.
    Warning(&'a str),
    /// A transfer named `id` (a short digest or a path) goes on; bytes.
    Transfer {
        /// The object being transferred.
        id: &'a str,
        /// Bytes done so far.
        done: u64,
        /// Total bytes, if known.
        total: Option<u64>,
    },
    /// The transfer named `id` is complete.
    TransferDone(&'a str),
    /// A piece of a script's output, as it came: not necessarily a whole line, nor UTF-8.
    ScriptOutput(&'a [u8]),
}

/// Receives [`Event`]s. Called from several threads at once.
pub trait Reporter: Send + Sync {
    /// Takes one event; must not fail and should not block for long.
    fn event(&self, event: Event<'_>);

    /// Shorthand for [`Event::Step`].
    fn step(&self, text: &str) {
        self.event(Event::Step(text));
    }

    /// Shorthand for [`Event::Note`].
    fn note(&self, text: &str) {
        self.event(Event::Note(text));
    }

    /// Shorthand for [`Event::Warning`].
    fn warning(&self, text: &str) {
        self.event(Event::Warning(text));
    }
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event<'_>) {}
}
