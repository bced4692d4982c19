//! Checks the scripts' interpreters and line ends.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Pack, Problems, Severity};
use crate::pack::shebang::{Start, start};

/// The maximum number of bytes read from a script, 1 MiB.
const MAX_READ: u64 = 1 << 20;
/// The maximum number of files checked in `bin/` and in `lib/`.
const MAX_FILES: usize = 500;
/// The search path for NAME in `#!/usr/bin/env NAME`.
const PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The optional scripts: severity and effect of their absence.
pub(super) const OPTIONAL: [(&str, Severity, &str); 5] = [
    ("bin/run", Severity::Error, "the service can't be run"),
    ("bin/client", Severity::Note, "`svp client` has nothing to run"),
    ("bin/extra", Severity::Note, "`svp extra` has nothing to run"),
    ("bin/backup", Severity::Note, "`svp backup` stops the service and copies its files"),
    ("bin/restore", Severity::Note, "`svp restore` accepts only such copies"),
];

/// Checks one of the pack's scripts; returns whether the host could start it.
pub(super) fn check(pack: &Pack, script: &str, problems: &mut Problems) -> bool {
    let Some(text) = read(pack, script) else {
        problems.add(Severity::Error, script, "can't be read", None);
        return false;
    };
    line_ends(script, &text, problems);
    match start(&text) {
        Start::Program => {
            let what = "is a compiled program, not a script: it runs on one architecture only";
            problems.add(Severity::Note, script, what, None);
            true
        }
        Start::Bad(why) => {
            let hint = "begin the script with its interpreter, such as #!/bin/sh";
            problems.add(Severity::Error, script, why, hint).line = Some(1);
            false
        }
        Start::Interpreter(interpreter, argument) => {
            let missing = missing(interpreter, argument);
            if let Some(name) = &missing {
                interpreter_missing(script, name, problems);
            }
            missing.is_none()
        }
    }
}

/// Reports a missing interpreter: an error for `bin/query`, which runs on the host; else a warning, since the
/// image may have it.
fn interpreter_missing(script: &str, name: &str, problems: &mut Problems) {
    let problem = if script == "bin/query" {
        let what = format!("its interpreter {name} is not on this host");
        let hint = "use #!/bin/sh: bin/query runs before the image exists";
        problems.add(Severity::Error, script, what, hint)
    } else {
        let what = format!("its interpreter {name} is not on this host");
        let hint = "install it in the image: the base needs it for bin/build, which can install it for the others";
        problems.add(Severity::Warning, script, what, hint)
    };
    problem.line = Some(1);
}

/// Returns the interpreter if the host lacks it.
fn missing(interpreter: &str, argument: Option<&str>) -> Option<String> {
    if !Path::new(interpreter).is_file() {
        return Some(interpreter.to_owned());
    }
    let name = argument.filter(|_| interpreter.ends_with("/env"))?.split_whitespace().next()?;
    let found = PATH.iter().any(|dir| Path::new(dir).join(name).is_file());
    (!found && !name.starts_with('-') && !name.contains('=')).then(|| name.to_owned())
}

/// Reports CRLF in sourced scripts: files in `bin/` and `lib/` that are not scripts of the API.
pub(super) fn check_others(pack: &Pack, problems: &mut Problems) {
    let known = super::REQUIRED.into_iter().chain(OPTIONAL.map(|(script, ..)| script));
    let known: Vec<&str> = known.collect();
    for name in ["bin", "lib"] {
        let mut files: Vec<PathBuf> = fs::read_dir(pack.path().join(name))
            .into_iter()
            .flatten()
            .take(MAX_FILES)
            .filter_map(|entry| Some(entry.ok()?.file_name().into()))
            .collect();
        files.sort();
        for file in files {
            let script = format!("{name}/{}", file.display());
            if known.contains(&script.as_str()) || pack.ignores(&script) {
                continue;
            }
            let Some(text) = read(pack, &script) else { continue };
            // Only files that a shell may read: data files may use any line ends.
            if text.starts_with(b"#!") || script.ends_with(".sh") {
                line_ends(&script, &text, problems);
            }
        }
    }
}

/// Reports lines that end in CRLF.
fn line_ends(script: &str, text: &[u8], problems: &mut Problems) {
    if text.contains(&0) {
        return;
    }
    let mut crlf =
        text.split(|&byte| byte == b'\n').enumerate().filter(|(_, l)| l.ends_with(b"\r"));
    if let Some((index, _)) = crlf.next() {
        let more = crlf.count();
        let what = match more {
            0 => "ends in CRLF".to_owned(),
            _ => format!("ends in CRLF (and {more} more)"),
        };
        let hint = "save the file with LF: sed -i 's/\\r$//' FILE";
        problems.add(Severity::Error, script, what, hint).line = Some(index + 1);
    }
}

/// Reads the beginning of a regular file, following links, without blocking on a fifo.
fn read(pack: &Pack, script: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::openat(&pack.dir, script, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_READ).read_to_end(&mut text).ok()?;
    Some(text)
}
