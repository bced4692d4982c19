//! Classifies and totals differences, and buffers their output.

use serde::Serialize;

use crate::cli::common::Context;
use crate::error::Result;
use crate::layer::compare::{Aspect, Difference, aspects};
use crate::layer::file_tree::{FileKind, Inode};

/// Size of the output buffer, in bytes.
const PRINTED: usize = 64 << 10;

/// Buffers lines and prints them in large pieces.
pub(super) struct Printer<'a> {
    pub(super) context: &'a Context,
    pub(super) text: String,
}

impl Printer<'_> {
    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() < PRINTED { Ok(()) } else { self.flush() }
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.context.print(&std::mem::take(&mut self.text))
    }
}

/// The change of a path.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    Added,
    Changed,
    Removed,
}

impl Change {
    pub(super) fn of(difference: &Difference<'_>) -> Self {
        match (difference.before, difference.after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        }
    }

    /// Returns the letter that podman and docker print.
    pub(super) fn letter(self) -> char {
        match self {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Removed => 'D',
        }
    }
}

/// Returns the size of the content in bytes; 0 for a path that does not exist or is not a regular file.
pub(super) fn size(inode: Option<&Inode>) -> u64 {
    match inode.map(|inode| &inode.kind) {
        Some(FileKind::File { size, .. }) => *size,
        _ => 0,
    }
}

/// Returns the changed attributes of a path; empty if it was added or removed.
pub(super) fn changed(difference: &Difference<'_>) -> Vec<Aspect> {
    match (difference.before, difference.after) {
        (Some(before), Some(after)) => aspects(before, after),
        _ => Vec::new(),
    }
}

/// Totals of the differences.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sums {
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) removed: u64,
    /// Counts only paths that differ.
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
}

impl Sums {
    pub(super) fn of(differences: &[Difference<'_>]) -> Self {
        let mut sums = Sums::default();
        for difference in differences {
            match Change::of(difference) {
                Change::Added => sums.added += 1,
                Change::Changed => sums.changed += 1,
                Change::Removed => sums.removed += 1,
            }
            sums.bytes_before = sums.bytes_before.saturating_add(size(difference.before));
            sums.bytes_after = sums.bytes_after.saturating_add(size(difference.after));
        }
        sums
    }
}
