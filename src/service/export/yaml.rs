//! Writes YAML as people do: block style, quotes only where needed.
//!
//! Readers may use YAML 1.1 (podman, PyYAML) or 1.2: a string is written plain only if it is a string in
//! both. `no`, `1.0`, `12:30` and `~` are quoted, and so is any text with a special first or last character.

use std::fmt::Write as _;

/// A document, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Yaml {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i64),
    /// True or false.
    Bool(bool),
    /// A sequence.
    List(Vec<Yaml>),
    /// A mapping, in this order.
    Map(Vec<(String, Yaml)>),
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Yaml::Text(text.to_owned())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Yaml::Text(text)
    }
}

impl From<u16> for Yaml {
    fn from(number: u16) -> Self {
        Yaml::Number(number.into())
    }
}

impl From<bool> for Yaml {
    fn from(value: bool) -> Self {
        Yaml::Bool(value)
    }
}

impl From<Vec<Yaml>> for Yaml {
    fn from(list: Vec<Yaml>) -> Self {
        Yaml::List(list)
    }
}

impl<const N: usize> From<[(&str, Yaml); N]> for Yaml {
    fn from(entries: [(&str, Yaml); N]) -> Self {
        Yaml::Map(entries.map(|(name, value)| (name.to_owned(), value)).into())
    }
}

impl Yaml {
    /// Adds an entry to a mapping; leaves anything else unchanged.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Yaml>) -> Yaml {
        if let Yaml::Map(entries) = &mut self {
            entries.push((name.to_owned(), value.into()));
        }
        self
    }

    /// Adds an entry if there is a value.
    pub(crate) fn with_some(self, name: &str, value: Option<impl Into<Yaml>>) -> Yaml {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Returns the text of a document, without `---`, ending with a newline.
    pub(crate) fn document(&self) -> String {
        let mut out = String::new();
        match self {
            Yaml::List(list) if !list.is_empty() => block(self, 0, &mut out),
            Yaml::Map(map) if !map.is_empty() => block(self, 0, &mut out),
            other => {
                // Lines of a literal block must be indented deeper than their parent.
                scalar(other, 2, &mut out);
                out.push('\n');
            }
        }
        out
    }
}

/// Writes a non-empty mapping or list, each line indented by `indent`.
fn block(value: &Yaml, indent: usize, out: &mut String) {
    match value {
        Yaml::Map(entries) => {
            for (name, value) in entries {
                let _ = write!(out, "{:indent$}{}:", "", one_line(name));
                match value {
                    Yaml::Map(map) if !map.is_empty() => {
                        out.push('\n');
                        block(value, indent + 2, out);
                    }
                    Yaml::List(list) if !list.is_empty() => {
                        out.push('\n');
                        block(value, indent + 2, out);
                    }
                    _ => {
                        out.push(' ');
                        scalar(value, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        Yaml::List(items) => {
            for item in items {
                let _ = write!(out, "{:indent$}- ", "");
                match item {
                    Yaml::Map(inner) if !inner.is_empty() => nested(item, indent + 2, out),
                    Yaml::List(inner) if !inner.is_empty() => nested(item, indent + 2, out),
                    _ => {
                        scalar(item, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        _ => {}
    }
}

/// Writes a block whose first line continues after a dash.
fn nested(value: &Yaml, indent: usize, out: &mut String) {
    let mut lines = String::new();
    block(value, indent, &mut lines);
    out.push_str(&lines[indent..]);
}

/// Writes a scalar on one line, or a literal block indented by `indent`; without a final newline.
fn scalar(value: &Yaml, indent: usize, out: &mut String) {
    match value {
        Yaml::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Yaml::Bool(value) => {
            let _ = write!(out, "{value}");
        }
        Yaml::List(_) => out.push_str("[]"),
        Yaml::Map(_) => out.push_str("{}"),
        Yaml::Text(text) if is_literal(text) => {
            out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
            for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    let _ = write!(out, "{:indent$}{line}", "");
                }
            }
        }
        Yaml::Text(text) => out.push_str(&one_line(text)),
    }
}

/// Whether a text can be a literal block: several lines that any reader keeps as they are.
fn is_literal(text: &str) -> bool {
    let lines = text.strip_suffix('\n').unwrap_or(text);
    lines.contains('\n')
        && !lines.starts_with([' ', '\t', '\n'])
        && !lines.ends_with('\n')
        && lines.chars().all(|c| c == '\n' || is_plain_character(c))
        // A line of only blanks might be read as an empty one.
        && lines.split('\n').all(|line| line.is_empty() || !line.trim().is_empty())
}

/// Formats a text on one line, quoted if necessary.
fn one_line(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_plain_character(c) => out.push(c),
            c if u32::from(c) <= 0xff => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if u32::from(c) <= 0xffff => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// Whether a character needs no escape: printable, and neither a line break nor a byte order mark for any reader.
fn is_plain_character(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
        // Unicode noncharacters, which some readers reject.
        && u32::from(c) & 0xfffe != 0xfffe
}

/// Whether a text needs no quotes.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    // An option such as -c is neither a list nor a number.
    let word = text.strip_prefix('-').unwrap_or(text);
    // 1Gi: with such a letter no version reads it as a number, time or date.
    let amount =
        text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(['G', 'K', 'M', 'm']);
    let first = word.starts_with(|c: char| c.is_ascii_alphabetic()) || text.starts_with('/');
    let last = text.ends_with(|c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c));
    let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || " /_-.,:=+@".contains(c));
    let words = !WORDS.contains(&text.to_ascii_lowercase().as_str());
    (first || amount) && last && rest && words && !text.contains(": ") && !text.contains("  ")
}

#[cfg(test)]
mod round_trip;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_if_necessary() {
        for plain in [
            "a",
            "/bin/sh",
            "localhost/x:latest",
            "redis-server /etc/x.conf",
            "-c",
            "ReadWriteOnce",
            "1Gi",
            "500m",
        ] {
            assert_eq!(one_line(plain), plain);
        }
        let quoted = [
            ("", "\"\""),
            ("no", "\"no\""),
            ("Off", "\"Off\""),
            ("1.0", "\"1.0\""),
            ("12:30", "\"12:30\""),
            ("~", "\"~\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("a:", "\"a:\""),
            (" a", "\" a\""),
            ("- a", "\"- a\""),
            ("-1", "\"-1\""),
            ("---", "\"---\""),
            ("{a}", "\"{a}\""),
            ("it's", "\"it's\""),
            ("\"", "\"\\\"\""),
            ("a\nb\r\t\u{0}\u{7f}\u{85}\u{2028}", "\"a\\nb\\r\\t\\x00\\x7f\\x85\\u2028\""),
            ("ä", "\"ä\""),
        ];
        for (text, written) in quoted {
            assert_eq!(one_line(text), written);
        }
    }

    #[test]
    fn blocks() {
        let document = Yaml::from([
            ("kind", "Pod".into()),
            ("none", Yaml::List(vec![])),
            ("args", Yaml::List(vec!["sh".into(), "set -e\n\n  x\n".into()])),
            ("list", Yaml::List(vec![[("name", "a".into()), ("size", 5u16.into())].into()])),
            ("NO", [("yes", true.into())].into()),
        ]);
        let expected = "\
kind: Pod
none: []
args:
  - sh
  - |
    set -e

      x
list:
  - name: a
    size: 5
\"NO\":
  \"yes\": true
";
        assert_eq!(document.document(), expected);
    }
}
