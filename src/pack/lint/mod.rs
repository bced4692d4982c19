//! Finds all problems of a pack at once: [`lint`].
//!
//! Problems that make svp refuse the pack are [`Severity::Error`], probable mistakes [`Severity::Warning`], and
//! missing optional parts [`Severity::Note`].

mod answers;
mod problem;
mod scripts;

use std::io;
use std::path::Path;

use super::archive::PREFIX;
use super::query::{Key, QueryRunner};
use super::{Pack, REQUIRED, Script};
use problem::Problems;
pub use problem::{Problem, Severity};
use scripts::OPTIONAL;

/// Returns all problems of the pack in `dir`, errors first. `runner` runs `bin/query`; it is not called if that
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

/// Reports files that a layer can't contain, and a `.svpignore` that excludes too much.
fn check_layer(pack: &Pack, problems: &mut Problems) {
    if let Err(error) = pack.write_layer(&mut io::sink(), PREFIX) {
        problems.error(".", &error);
    }
    for (script, ..) in OPTIONAL {
        if pack.has(script) && pack.ignores(script) {
            let what = format!("excludes {script}");
            problems.add(Severity::Error, ".svpignore", what, "narrow its patterns");
        }
    }
}

#[cfg(test)]
mod tests;
