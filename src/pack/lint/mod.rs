//! Finds all problems of a pack at once: [`lint`].
//!
//! Problems that make svp refuse the pack are [`Severity::Error`], probable mistakes [`Severity::Warning`], and
//! missing optional parts [`Severity::Note`].

mod answers;
mod scripts;

use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::archive::PREFIX;
use super::query::{Key, QueryRunner};
use super::{Pack, REQUIRED, Script};
use crate::error::Error;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong.
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
    /// The line of the file, from 1, if the problem is in one line.
    pub line: Option<usize>,
    /// The fault.
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

/// Collects problems.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(
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

    fn error(&mut self, path: &str, error: &Error) {
        let problem = self.add(Severity::Error, path, error.to_string(), None);
        problem.hint = error.hint_text().map(str::to_owned);
    }
}

/// The optional scripts: severity and effect of their absence.
const OPTIONAL: [(&str, Severity, &str); 5] = [
    ("bin/run", Severity::Error, "the service can't be run"),
    ("bin/client", Severity::Note, "`svp client` has nothing to run"),
    ("bin/extra", Severity::Note, "`svp extra` has nothing to run"),
    ("bin/backup", Severity::Note, "`svp backup` stops the service and copies what it has written"),
    ("bin/restore", Severity::Note, "`svp restore` accepts only such copies"),
];

/// Returns all problems of the pack in `dir`, worst first. `runner` runs `bin/query`; it is not called if that
/// script can't be started.
pub fn lint(dir: &Path, runner: &mut QueryRunner<'_>) -> Vec<Problem> {
    let mut problems = Problems::default();
    match Pack::open_dir(dir) {
        Err(error) => problems.error(".", &error),
        Ok(pack) => {
            let runnable = check_scripts(&pack, &mut problems);
            check_layer(&pack, &mut problems);
            if runnable {
                answers::check(runner, &mut problems);
            }
        }
    }
    // A stable sort keeps the order of the checks within a severity.
    problems.0.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    problems.0
}

/// Checks the scripts; returns whether `bin/query` can be started.
fn check_scripts(pack: &Pack, problems: &mut Problems) -> bool {
    let mut runnable = false;
    let required = REQUIRED.map(|script| (script, Severity::Error, "every pack needs it"));
    for (script, severity, without) in required.into_iter().chain(OPTIONAL) {
        match pack.script(script) {
            Err(error) => problems.error(script, &error),
            Ok(Script::Missing) => {
                problems.add(severity, script, format!("is missing: {without}"), None);
            }
            Ok(Script::NotAFile) => {
                problems.add(Severity::Error, script, "is not a file", None);
            }
            Ok(Script::NotExecutable) => {
                let problem = problems.add(Severity::Error, script, "is not executable", None);
                problem.hint = Some(format!("chmod +x {}", pack.path().join(script).display()));
            }
            Ok(Script::Executable) => {
                let startable = scripts::check(pack, script, problems);
                runnable |= startable && script == "bin/query";
            }
        }
    }
    let has = |script: &str| matches!(pack.script(script), Ok(Script::Executable));
    if has("bin/backup") && !has("bin/restore") {
        let what = "there is no bin/restore to read the backup";
        problems.add(Severity::Warning, "bin/backup", what, None);
    }
    scripts::check_others(pack, problems);
    runnable
}

/// Reports files that a layer can't hold, and a `.svpignore` that excludes too much.
fn check_layer(pack: &Pack, problems: &mut Problems) {
    if let Err(error) = pack.write_layer(&mut io::sink(), PREFIX) {
        problems.error(".", &error);
    }
    for (script, ..) in OPTIONAL {
        if pack.has(script) && pack.leaves_out(script) {
            let what = format!("excludes {script}");
            problems.add(Severity::Error, ".svpignore", what, "narrow its patterns");
        }
    }
}

#[cfg(test)]
mod tests;
