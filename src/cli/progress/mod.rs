//! Progress on standard error: bars on a terminal, plain lines elsewhere, JSON lines for programs.

mod backup;
mod words;

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::escape::{escape_controls, for_terminal};
use crate::progress::{BackupProgress, Event, Reporter, Transfer, Warning};
use backup::BackupLine;
pub(crate) use words::line;

/// Progress output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Style {
    /// Bars on a terminal, plain lines elsewhere
    Auto,
    /// Plain lines
    Plain,
    /// One JSON object per line
    Json,
    /// Warnings and errors only
    Quiet,
}

/// Interval between plain lines of one backup, and the time before the first.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
const PLAIN_DELAY: Duration = Duration::from_secs(2);

/// Displays the events that the library reports.
pub(super) struct Terminal {
    style: Style,
    amount: Amount,
    state: Mutex<State>,
}

/// The minimum importance of an event that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Amount {
    /// Only errors, which are not events: `--quiet`.
    Nothing,
    Warnings,
    All,
}

#[derive(Default)]
struct State {
    bars: Option<MultiProgress>,
    /// The bars, by the digests of the blobs.
    transfers: HashMap<String, ProgressBar>,
    /// The time of the last JSON event of each transfer.
    last_printed: HashMap<String, Instant>,
    /// Output of a script after its last newline.
    partial: Vec<u8>,
    /// The backup being written or read.
    backup: BackupLine,
    /// When each announced wait for a registry ends, by its reason: parallel transfers wait for the same one.
    waits: HashMap<String, Instant>,
}

/// Longer lines of a script are printed in pieces of this many bytes.
const MAX_LINE: usize = 4096;
/// Interval between JSON events of one transfer.
const JSON_INTERVAL: Duration = Duration::from_millis(250);

impl Terminal {
    pub(super) fn new(style: Style, quiet: bool) -> Self {
        let amount = match style {
            _ if quiet => Amount::Nothing,
            Style::Quiet => Amount::Warnings,
            _ => Amount::All,
        };
        let bars = amount == Amount::All && style == Style::Auto && std::io::stderr().is_terminal();
        let state = State { bars: bars.then(MultiProgress::new), ..State::default() };
        Terminal { style, amount, state: Mutex::new(state) }
    }

    pub(super) fn finish(&self) {
        if let Ok(mut state) = self.state.lock() {
            self.flush_partial(&mut state);
            state.backup.clear();
            for (_, bar) in state.transfers.drain() {
                bar.finish_and_clear();
            }
        }
    }

    /// Copies a script's output to standard error, without disturbing the bars: unchanged, but escaped for a terminal.
    pub(super) fn copy_output(&self, bytes: &[u8]) {
        let Ok(state) = self.state.lock() else { return };
        let escaped = std::io::stderr().is_terminal().then(|| for_terminal(bytes));
        let bytes = escaped.as_deref().unwrap_or(bytes);
        // The reader may have closed its end.
        let write = || drop(std::io::stderr().lock().write_all(bytes));
        match &state.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn backup(&self, state: &mut State, event: &Event<'_>, progress: &BackupProgress<'_>) {
        if self.amount < Amount::All {
            return;
        }
        let State { backup, bars, .. } = state;
        let due = match (self.style, &bars) {
            (Style::Json, _) => backup.is_due(progress, JSON_INTERVAL, Duration::ZERO),
            (_, Some(bars)) => return backup.draw(bars, progress),
            _ => backup.is_due(progress, PLAIN_INTERVAL, PLAIN_DELAY),
        };
        if due {
            self.print_event(state, event);
        }
    }

    fn print_event(&self, state: &mut State, event: &Event<'_>) {
        let importance = match event {
            // A wall that is missing is never silent.
            Event::Warning(Warning::ContainerNetwork { .. }) => Amount::Nothing,
            Event::Warning(_) => Amount::Warnings,
            _ => Amount::All,
        };
        if self.amount < importance {
            return;
        }
        if let Event::Retry(retry) = event
            && self.style != Style::Json
        {
            let now = Instant::now();
            if state.waits.get(&retry.reason).is_some_and(|end| *end > now) {
                return;
            }
            state.waits.insert(retry.reason.clone(), now + retry.delay);
        }
        let line = match self.style {
            Style::Json => serde_json::to_string(event).ok(),
            _ => words::line(event).map(|line| format!("svp: {}", escape_controls(&line))),
        };
        if let Some(line) = line {
            // Print the script's incomplete line first, so that it doesn't mix with this one.
            self.flush_partial(state);
            put(state, &line);
        }
    }

    fn script_output(&self, state: &mut State, bytes: &[u8]) {
        if self.amount < Amount::All {
            return;
        }
        for &byte in bytes {
            if byte == b'\n' || state.partial.len() >= MAX_LINE {
                self.flush_line(state);
            }
            if byte != b'\n' {
                state.partial.push(byte);
            }
        }
    }

    fn flush_partial(&self, state: &mut State) {
        if !state.partial.is_empty() {
            self.flush_line(state);
        }
    }

    fn flush_line(&self, state: &mut State) {
        let line = std::mem::take(&mut state.partial);
        let line = String::from_utf8_lossy(&line);
        // Carriage returns redraw a line, such as a progress bar: keep the last state.
        let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        let shown = match self.style {
            Style::Json => json!({"event": "output", "text": line}).to_string(),
            _ => format!("  | {}", escape_controls(line)),
        };
        put(state, &shown);
    }

    fn transfer(&self, state: &mut State, event: &Event<'_>, transfer: Transfer<'_>) {
        let Transfer { digest, done, total, .. } = transfer;
        if self.style == Style::Json {
            // Limit the rate: programs don't need an event for every chunk.
            let last = state.last_printed.get(digest);
            if done == 0 || last.is_none_or(|last| last.elapsed() >= JSON_INTERVAL) {
                state.last_printed.insert(digest.to_owned(), Instant::now());
                self.print_event(state, event);
            }
            return;
        }
        let Some(bars) = &state.bars else { return };
        let bar = state.transfers.entry(digest.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(total.unwrap_or(0)));
            let template = "  {prefix:12} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(words::short(digest).to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        bar.set_position(done);
    }

    fn transferred(&self, state: &mut State, event: &Event<'_>, digest: &str) {
        state.last_printed.remove(digest);
        if let Some(bar) = state.transfers.remove(digest) {
            bar.finish_and_clear();
        }
        self.print_event(state, event);
    }
}

fn put(state: &State, line: &str) {
    match &state.bars {
        Some(bars) => bars.suspend(|| write_line(line)),
        None => write_line(line),
    }
}

fn write_line(line: &str) {
    // Standard error may be closed; the command goes on.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

impl Reporter for Terminal {
    fn event(&self, event: Event<'_>) {
        let Ok(mut state) = self.state.lock() else { return };
        match event {
            Event::ScriptOutput(bytes) => self.script_output(&mut state, bytes),
            Event::Transfer(transfer) => self.transfer(&mut state, &event, transfer),
            Event::BackupProgress(progress) => self.backup(&mut state, &event, &progress),
            Event::Transferred { digest } => self.transferred(&mut state, &event, digest),
            _ => self.print_event(&mut state, &event),
        }
    }
}
