//! The log file of a script: the start and the end of its output.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::store::Store;

/// How many lines of a failed script are shown with the error.
const LAST_LINES: usize = 10;
/// How many bytes of the output are searched for these lines.
const LAST_BYTES: usize = 16 << 10;
/// How many logs are kept in the store.
const LOGS: usize = 50;
/// The maximum size of the end of a log, which is in memory until the script has ended.
const MOST_END: u64 = 4 << 20;

/// A log that is being written.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    result: std::io::Result<()>,
    /// How many bytes the start may still take.
    start_left: usize,
    /// The last bytes after the start.
    end: VecDeque<u8>,
    most_end: usize,
    /// The number of bytes between the start and the end.
    dropped: u64,
    last: Vec<u8>,
}

/// A finished log.
pub(super) struct Finished {
    pub(super) path: PathBuf,
    /// The last lines.
    pub(super) tail: Vec<String>,
    /// The number of bytes that it lacks.
    pub(super) dropped: u64,
}

impl Log {
    /// Creates a log of at most `size` bytes, for an image with this name.
    pub(super) fn create(store: &Store, name: &str, size: u64) -> Result<Log> {
        let dir = store.layout().logs();
        prune(&dir);
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = tempfile::Builder::new()
            .prefix(&format!("{}-{name}-", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")))
            .suffix(".log")
            .rand_bytes(4)
            .tempfile_in(&dir)
            .io("create a log in", &dir)?;
        let (file, path) = file.keep().map_err(|error| Error::io("keep", &dir, error.error))?;
        Ok(Log::of(file, path, size))
    }

    fn of(file: File, path: PathBuf, size: u64) -> Log {
        let most_end = (size / 4).min(MOST_END);
        Log {
            path,
            file,
            result: Ok(()),
            start_left: usize::try_from(size - most_end).unwrap_or(usize::MAX),
            end: VecDeque::new(),
            most_end: most_end as usize,
            dropped: 0,
            last: Vec::new(),
        }
    }

    /// Appends output.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let (start, end) = bytes.split_at(bytes.len().min(self.start_left));
        self.start_left -= start.len();
        self.write(start);
        self.end.extend(end);
        let excess = self.end.len().saturating_sub(self.most_end);
        self.end.drain(..excess);
        self.dropped += excess as u64;
        self.last.extend_from_slice(bytes);
        let excess = self.last.len().saturating_sub(LAST_BYTES);
        self.last.drain(..excess);
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = self.file.write_all(bytes);
        }
    }

    /// Writes the end, with a line in place of what is dropped.
    pub(super) fn finish(mut self) -> Result<Finished> {
        if self.dropped > 0 {
            // Begin with a whole line, if there is one.
            let line = self.end.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let line = if line < self.end.len() { line } else { 0 };
            self.end.drain(..line);
            self.dropped += line as u64;
            self.write(format!("\n[svp: {} bytes are left out here]\n", self.dropped).as_bytes());
        }
        let end = std::mem::take(&mut self.end);
        let (first, second) = end.as_slices();
        self.write(first);
        self.write(second);
        self.result.io("write", &self.path)?;
        let text = String::from_utf8_lossy(&self.last);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(LAST_LINES)..]
            .iter()
            .map(|line| line.chars().take(500).collect())
            .collect();
        Ok(Finished { path: self.path, tail, dropped: self.dropped })
    }
}

/// Removes all but the newest logs, whose names begin with the time.
fn prune(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    logs.sort();
    let old = logs.len().saturating_sub(LOGS - 1);
    for path in &logs[..old] {
        // Best effort: a later command removes the rest.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(size: u64, pieces: &[&str]) -> (String, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::of(File::create(&path).unwrap(), path.clone(), size);
        pieces.iter().for_each(|piece| log.take(piece.as_bytes()));
        let dropped = log.finish().unwrap().dropped;
        (std::fs::read_to_string(path).unwrap(), dropped)
    }

    #[test]
    fn a_short_log_is_whole() {
        assert_eq!(log(16, &["0123456789", "abcde", "f"]), ("0123456789abcdef".into(), 0));
        assert_eq!(log(16, &[]), (String::new(), 0));
    }

    #[test]
    fn a_long_log_keeps_its_start_and_its_end() {
        let left_out = |n: u64| format!("\n[svp: {n} bytes are left out here]\n");
        let (text, dropped) = log(16, &["0123456789ab", "cdefghij", "z"]);
        assert_eq!((text, dropped), (format!("0123456789ab{}hijz", left_out(5)), 5));
        // The end begins with a whole line.
        assert_eq!(
            log(16, &["0123456789ab", "xxxxx\ny\n"]).0,
            format!("0123456789ab{}y\n", left_out(6))
        );
    }
}
