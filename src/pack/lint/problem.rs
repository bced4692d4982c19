//! Problems of a pack.

use std::fmt;

use serde::Serialize;

use crate::error::Error;

/// The severity of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Not a fault, such as a missing optional script.
    Note,
    /// A probable mistake.
    Warning,
    /// The pack can't be used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// A problem of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The severity.
    pub severity: Severity,
    /// The file, relative to the pack; `.` for the pack itself.
    pub path: String,
    /// The line number, from 1, if the problem is in one line.
    pub line: Option<usize>,
    /// The description of the problem.
    pub message: String,
    /// The way to fix it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    /// Formats as `severity: path:line: message`, without the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.path)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The problems found so far.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(
        &mut self,
        severity: Severity,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<Option<&'static str>>,
    ) -> &mut Problem {
        let hint = hint.into().map(str::to_owned);
        let (path, message) = (path.to_owned(), message.into());
        self.0.push(Problem { severity, path, line: None, message, hint });
        self.0.last_mut().expect("just pushed")
    }

    pub(super) fn error(&mut self, path: &str, error: &Error) {
        let problem = self.add(Severity::Error, path, error.to_string(), None);
        problem.hint = error.hint_text().map(str::to_owned);
    }
}
