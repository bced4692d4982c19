//! Writes a component's log, and rotates its files.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::file;
use crate::sandbox::Stream;
use crate::service::record::LogLimits;

/// Longer lines are written in pieces of this many bytes, which readers join again.
const LONGEST: usize = 1 << 20;

/// The log of one component, shared by its two streams.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    component: String,
    limits: LogLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    size: u64,
    /// Why the last write failed: the service continues without its log, and its status shows the reason.
    failed: Option<String>,
}

impl Log {
    /// Opens the log for appending.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub(crate) fn open(dir: &Path, component: &str, limits: LogLimits) -> io::Result<Log> {
        let file = open(&file(dir, component, 0))?;
        let size = file.metadata()?.len();
        let state = Mutex::new(State { file, size, failed: None });
        Ok(Log { dir: dir.to_owned(), component: component.to_owned(), limits, state })
    }

    /// Copies `source` to the log until end of file, and passes the output to `show`.
    pub(crate) fn copy_from(
        &self,
        stream: Stream,
        mut source: impl Read,
        show: &dyn Fn(Stream, &[u8]),
    ) {
        let mut pending = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            pending.extend_from_slice(&buffer[..length]);
            let whole = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole > 0 {
                self.lines(stream, &pending[..whole], show);
                pending.drain(..whole);
            }
            while pending.len() >= LONGEST {
                let head = head(stream, 'P');
                self.append(&[head.as_bytes(), &pending[..LONGEST], b"\n"].concat());
                show(stream, &pending[..LONGEST]);
                pending.drain(..LONGEST);
            }
        }
        if !pending.is_empty() {
            // The stream ended in the middle of a line: complete the line.
            self.lines(stream, &[&pending[..], b"\n"].concat(), show);
        }
    }

    /// Returns why the last write failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state.lock().ok()?.failed.clone()
    }

    fn lines(&self, stream: Stream, lines: &[u8], show: &dyn Fn(Stream, &[u8])) {
        // The lines were read together, so they share one timestamp.
        let head = head(stream, 'F');
        let mut text = Vec::with_capacity(lines.len() * 2);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            text.extend_from_slice(head.as_bytes());
            text.extend_from_slice(line);
        }
        self.append(&text);
        show(stream, lines);
    }

    /// Writes whole entries, after rotating the file if it has reached its maximum size.
    fn append(&self, text: &[u8]) {
        let Ok(mut state) = self.state.lock() else { return };
        // If a new file can't be created, keep writing to the old one: nothing is lost.
        let _ = self.rotate(&mut state);
        let result = state.file.write_all(text);
        match result {
            Ok(()) => {
                state.size += text.len() as u64;
                state.failed = None;
            }
            Err(error) => {
                // A partial entry would corrupt the next one, once there is space again.
                let _ = state.file.set_len(state.size);
                state.failed = Some(error.to_string());
            }
        }
    }

    fn rotate(&self, state: &mut State) -> io::Result<()> {
        if state.size < self.limits.size {
            return Ok(());
        }
        let name = |age| file(&self.dir, &self.component, age);
        // Create the new file before renaming the old ones: otherwise each attempt that fails to create it would
        // lose one more of them.
        let beside = name(0).with_extension("new");
        // Only an interrupted rotation leaves one.
        let _ = fs::remove_file(&beside);
        let new = open(&beside)?;
        let oldest = if name(0).exists() { self.limits.files.max(1) - 1 } else { 0 };
        for age in (0..oldest).rev() {
            match fs::rename(name(age), name(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&beside, name(0))?;
        state.file = new;
        state.size = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// The prefix of an entry.
fn head(stream: Stream, tag: char) -> String {
    let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ");
    format!("{time} {name} {tag} ")
}
