//! Parsers of single arguments.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Parses `NAME=VALUE`, or `NAME`, whose value comes from svp's own environment.
pub(in crate::cli) fn env_argument(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => match std::env::var(text) {
            Ok(value) => (text, value),
            Err(_) => return Err(format!("{text} is not set; write {text}=VALUE")),
        },
    };
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if valid { Ok((name.to_owned(), value)) } else { Err(format!("{name:?} is not a name")) }
}

/// Parses an argument; an error keeps its hint, which clap alone would drop.
pub(in crate::cli) fn parsed<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(with_hint)
}

/// As [`parsed`], by a parser of its own.
pub(in crate::cli) fn parsed_by<T>(
    parse: impl Fn(&str) -> Result<T> + Clone,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| parse(text).map_err(with_hint)
}

fn with_hint(error: Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}
