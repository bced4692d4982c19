//! Writes values into unit files of systemd and of podman's quadlet.

use std::fmt::Write as _;

/// The text of a unit file under construction.
#[derive(Debug, Default)]
pub(super) struct Unit {
    text: String,
}

impl Unit {
    /// Creates a unit that begins with comments, one per line.
    pub(super) fn new(comments: &[String]) -> Unit {
        Unit { text: comments.iter().map(|line| format!("# {line}\n")).collect() }
    }

    /// Begins a section.
    pub(super) fn section(&mut self, name: &str) -> &mut Unit {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let _ = writeln!(self.text, "[{name}]");
        self
    }

    /// Adds a line. The value is written verbatim; [`word`] and [`line`] escape it.
    pub(super) fn set(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Unit {
        let _ = writeln!(self.text, "{key}={value}");
        self
    }

    /// Returns the text of the file.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Whether a value is part of a command line, in which systemd expands variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dollar {
    /// Part of a command line: dollar signs are doubled.
    Doubled,
    /// Not part of one: dollar signs are written as they are.
    Plain,
}

/// Formats a word of a command line or of `Environment=`: quoted if necessary, with specifiers (`%`) escaped.
pub(super) fn word(text: &str, dollar: Dollar) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:=@,+%$".contains(c);
    let bare = !text.is_empty() && text.chars().all(plain);
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '%' => out.push_str("%%"),
            '$' if dollar == Dollar::Doubled => out.push_str("$$"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    if bare { out } else { format!("\"{out}\"") }
}

/// Formats a value that ends its line as one argument of a command line; `None` if that is impossible.
/// quadlet strips quotes from both ends, regardless of the text between them.
pub(super) fn line(text: &str) -> Option<String> {
    let bare = |c: char| c == '"' || c.is_whitespace();
    if text.contains(char::is_control) || text != text.trim_matches(bare) || text.ends_with('\\') {
        return None;
    }
    Some(text.replace('%', "%%").replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let cases = [
            ("a=b", "a=b", "a=b"),
            ("50%", "50%%", "50%%"),
            ("$x", "$$x", "$x"),
            ("a b", "\"a b\"", "\"a b\""),
            ("", "\"\"", "\"\""),
            ("it's", "\"it's\"", "\"it's\""),
            ("\"\\", "\"\\\"\\\\\"", "\"\\\"\\\\\""),
            ("a\nb\x01", "\"a\\nb\\x01\"", "\"a\\nb\\x01\""),
            ("#;", "\"#;\"", "\"#;\""),
        ];
        for (text, doubled, plain) in cases {
            assert_eq!(word(text, Dollar::Doubled), doubled);
            assert_eq!(word(text, Dollar::Plain), plain);
        }
    }

    #[test]
    fn lines() {
        assert_eq!(line("test $x = 5%").unwrap(), "test $$x = 5%%");
        for text in [" a", "a ", "a\nb", "a\\", "\"a", "test a = \"b\""] {
            assert!(line(text).is_none(), "{text:?}");
        }
    }
}
