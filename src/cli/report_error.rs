//! Prints errors: the failure, then the hint. [`Kind`] decides the exit code.

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use super::escape::escape_controls;
use super::progress::Style;
use crate::error::{Cause, Error, Kind};

/// Prints the error on standard error, in the format of the progress output, and returns its exit code.
pub(super) fn report(error: &Error, style: Style) -> ExitCode {
    let code = error.kind().exit_code();
    let text = match (style, error.kind()) {
        (Style::Json, _) => {
            let (text, hint) = (error.to_string(), error.hint_text());
            json!({"event": "error", "text": text, "hint": hint, "exitCode": code}).to_string()
        }
        (_, Kind::Interrupted) => "svp: interrupted".to_owned(),
        _ => {
            let hint =
                error.hint_text().map(|hint| format!("\nsvp: hint: {}", escape_controls(hint)));
            format!(
                "svp: error: {}{}",
                escape_controls(&error.to_string()),
                hint.unwrap_or_default()
            )
        }
    };
    // Standard error may be closed or full; the exit code still reports the failure.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    ExitCode::from(code)
}

/// Returns the exit code for svp's own failures in commands that otherwise exit with a script's code, as in podman.
pub(super) fn own_code(error: &Error) -> ExitCode {
    ExitCode::from(match error.kind() {
        _ if error.is(Cause::CommandNotFound) => 127,
        _ if error.is(Cause::CommandNotExecutable) => 126,
        Kind::Interrupted => 130,
        _ => 125,
    })
}
