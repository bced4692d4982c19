//! Progress on standard error: bars on a terminal, plain lines elsewhere, JSON lines for programs.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::error::printable;
use crate::progress::{Event, Reporter};

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

/// Draws the events that the library reports.
pub(super) struct Terminal {
    style: Style,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bars: Option<MultiProgress>,
    transfers: HashMap<String, ProgressBar>,
    /// Output of a script after its last newline.
    partial: Vec<u8>,
}

/// Longer lines of a script are printed in pieces of this many bytes.
const MAX_LINE: usize = 4096;

impl Terminal {
    pub(super) fn new(style: Style) -> Self {
        let bars = style == Style::Auto && std::io::stderr().is_terminal();
        let state = State { bars: bars.then(MultiProgress::new), ..State::default() };
        Terminal { style, state: Mutex::new(state) }
    }

    pub(super) fn finish(&self) {
        if let Ok(mut state) = self.state.lock() {
            self.flush_partial(&mut state);
            for (_, bar) in state.transfers.drain() {
                bar.finish_and_clear();
            }
        }
    }

    fn say(&self, state: &mut State, kind: &str, text: &str) {
        // Whole lines move past the script's half-written one.
        self.flush_partial(state);
        let line = match (self.style, kind) {
            (Style::Json, _) => json!({"event": kind, "text": text}).to_string(),
            (Style::Quiet, "step" | "note") => return,
            (_, "warning") => format!("svp: warning: {}", printable(text)),
            (_, "note") => format!("svp: note: {}", printable(text)),
            _ => format!("svp: {}", printable(text)),
        };
        put(state, &line);
    }

    fn script(&self, state: &mut State, bytes: &[u8]) {
        if self.style == Style::Quiet {
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
        // A progress bar of the script's: what it drew last is what a person would see.
        let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        let shown = match self.style {
            Style::Json => json!({"event": "output", "text": line}).to_string(),
            _ => format!("  | {}", printable(line)),
        };
        put(state, &shown);
    }

    fn transfer(&self, state: &mut State, id: &str, done: u64, total: Option<u64>) {
        if self.style == Style::Json {
            return;
        }
        let Some(bars) = &state.bars else { return };
        let bar = state.transfers.entry(id.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(total.unwrap_or(0)));
            let template = "  {prefix:12} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(id.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        bar.set_position(done);
    }
}

fn put(state: &State, line: &str) {
    match &state.bars {
        Some(bars) => bars.suspend(|| write_line(line)),
        None => write_line(line),
    }
}

fn write_line(line: &str) {
    // Standard error may be closed: that is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

impl Reporter for Terminal {
    fn event(&self, event: Event<'_>) {
        let Ok(mut state) = self.state.lock() else { return };
        match event {
            Event::Step(text) => self.say(&mut state, "step", text),
            Event::Note(text) => self.say(&mut state, "note", text),
            Event::Warning(text) => self.say(&mut state, "warning", text),
            Event::ScriptOutput(bytes) => self.script(&mut state, bytes),
            Event::Transfer { id, done, total } => self.transfer(&mut state, id, done, total),
            Event::TransferDone(id) => {
                if let Some(bar) = state.transfers.remove(id) {
                    bar.finish_and_clear();
                } else if self.style == Style::Json {
                    put(&state, &json!({"event": "transferred", "text": id}).to_string());
                }
            }
        }
    }
}
