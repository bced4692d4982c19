//! An error on the terminal: what failed, then the way out, and the exit code.

use std::process::ExitCode;

use crate::error::{Error, Kind};

/// Prints the error on standard error and gives its exit code.
pub(super) fn report(error: &Error) -> ExitCode {
    if error.kind() == Kind::Interrupted {
        eprintln!("svp: interrupted");
    } else {
        eprintln!("svp: error: {}", printable(&error.to_string()));
        if let Some(hint) = error.hint_text() {
            eprintln!("svp: hint: {}", printable(hint));
        }
    }
    ExitCode::from(error.kind().exit_code())
}

/// Errors quote names and output that others chose: control characters must not reach the terminal.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
