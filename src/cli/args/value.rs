//! Parses command-line arguments into types of the library.

use std::str::FromStr;

use crate::error::Error;

/// Parses an argument; an error keeps its hint, which clap alone would drop.
pub(in crate::cli) fn parsed<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(with_hint)
}

fn with_hint(error: Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}
