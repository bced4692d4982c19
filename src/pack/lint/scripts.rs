//! The scripts themselves: interpreters and line ends.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Pack, Problems, Severity};
use crate::pack::shebang::{Start, start};

/// Scripts are read this far, 1 MiB.
const MAX_READ: u64 = 1 << 20;
/// Files in `bin/` and `lib/` that are looked at, at most.
const MAX_FILES: usize = 500;
/// Where `#!/usr/bin/env NAME` finds NAME.
const PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Checks one of the pack's scripts, and says whether the host could start it.
pub(super) fn check(pack: &Pack, script: &str, problems: &mut Problems) -> bool {
    let Some(text) = read(pack, script) else {
        problems.add(Severity::Error, script, "can't be read", None);
        return false;
    };
    line_ends(script, &text, problems);
    match start(&text) {
        Start::Program => {
            let what = "is a program, not a script: it runs on one kind of processor alone";
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

/// `bin/query` must start on the host, the others in the image, of which the host is only a hint.
fn interpreter_missing(script: &str, name: &str, problems: &mut Problems) {
    let problem = if script == "bin/query" {
        let what = format!("its interpreter {name} is not on this host");
        let hint = "query is asked before there is an image: #!/bin/sh is everywhere";
        problems.add(Severity::Error, script, what, hint)
    } else {
        let what = format!("its interpreter {name} is not on this host");
        let hint =
            "it must be in the image: in the base for bin/build, installed by it for the others";
        problems.add(Severity::Warning, script, what, hint)
    };
    problem.line = Some(1);
}

/// The interpreter that the host lacks.
fn missing(interpreter: &str, argument: Option<&str>) -> Option<String> {
    if !Path::new(interpreter).is_file() {
        return Some(interpreter.to_owned());
    }
    let name = argument.filter(|_| interpreter.ends_with("/env"))?.split_whitespace().next()?;
    let found = PATH.iter().any(|dir| Path::new(dir).join(name).is_file());
    (!found && !name.starts_with('-') && !name.contains('=')).then(|| name.to_owned())
}

/// CRLF in what scripts source: files of `bin/` and `lib/` that are no scripts of the API.
pub(super) fn check_others(pack: &Pack, problems: &mut Problems) {
    let known = super::REQUIRED.into_iter().chain(super::OPTIONAL.map(|(script, ..)| script));
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
            if known.contains(&script.as_str()) || pack.leaves_out(&script) {
                continue;
            }
            let Some(text) = read(pack, &script) else { continue };
            // Only what a shell may read: a table of data may end its lines as it likes.
            if text.starts_with(b"#!") || script.ends_with(".sh") {
                line_ends(&script, &text, problems);
            }
        }
    }
}

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
            _ => format!("ends in CRLF, as do {more} more lines"),
        };
        let hint = "save the file with LF: sed -i 's/\\r$//' FILE";
        problems.add(Severity::Error, script, what, hint).line = Some(index + 1);
    }
}

/// The beginning of a regular file, links followed; a fifo in its place must not make us wait.
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
