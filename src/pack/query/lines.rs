//! Splits an answer into lines, with the checks that apply to every key.

use crate::error::{Error, Result};

/// The maximum size of an answer, 64 KiB.
pub const MAX_ANSWER: usize = 64 << 10;
/// The maximum length of a line of an answer, 4 KiB.
pub const MAX_LINE: usize = 4 << 10;
/// The maximum number of lines of an answer.
pub const MAX_LINES: usize = 1000;

/// One line of an answer, with its position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub source: Source<'a>,
    /// The line number, from 1.
    pub number: usize,
    pub text: &'a str,
}

/// The script and the key of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub script: &'a str,
    pub key: &'a str,
}

impl Source<'_> {
    /// Creates an error about the whole answer.
    pub(super) fn bad(&self, why: impl std::fmt::Display) -> Error {
        Error::bad_input(format!("`{} {}` {why}", self.script, self.key))
    }

    fn bad_line(&self, number: usize, text: &[u8], why: impl std::fmt::Display) -> Error {
        let (script, key) = (self.script, self.key);
        Error::bad_input(format!("`{script} {key}`, line {number}: {}: {why}", shorten(text)))
    }
}

impl Line<'_> {
    /// Creates an error about this line: "`bin/query env`, line 2: "x": why".
    pub(super) fn bad(&self, why: impl std::fmt::Display) -> Error {
        self.source.bad_line(self.number, self.text.as_bytes(), why)
    }
}

/// Quotes, escapes and truncates `text` to fit on a terminal line.
pub(super) fn shorten(text: &[u8]) -> String {
    const MAX_SHOWN: usize = 60;
    let mut out = String::from("\"");
    let mut shown = 0;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if shown == MAX_SHOWN {
                return out + "\"…";
            }
            out.extend(c.escape_debug());
            shown += 1;
        }
        for byte in chunk.invalid() {
            if shown == MAX_SHOWN {
                return out + "\"…";
            }
            out += &format!("\\x{byte:02x}");
            shown += 1;
        }
    }
    out + "\""
}

/// Returns whether an answer is empty: nothing but line feeds.
pub(super) fn is_empty(output: &[u8]) -> bool {
    output.iter().all(|&byte| byte == b'\n')
}

/// Splits `output` into lines, ignoring empty lines at the end. Refuses other empty lines, a byte order mark,
/// carriage returns, NUL and other control characters except tab, invalid UTF-8, and more than [`MAX_LINE`] or
/// [`MAX_ANSWER`] bytes, or [`MAX_LINES`] lines.
pub(super) fn lines<'a>(source: Source<'a>, output: &'a [u8]) -> Result<Vec<Line<'a>>> {
    if output.len() > MAX_ANSWER {
        return Err(source.bad(format_args!("prints more than {MAX_ANSWER} bytes")));
    }
    let end = output.iter().rposition(|&byte| byte != b'\n').map_or(0, |last| last + 1);
    if end == 0 {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for (index, line) in output[..end].split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        if number > MAX_LINES {
            return Err(source.bad(format_args!("prints more than {MAX_LINES} lines")));
        }
        let text = check(line).map_err(|(why, hint)| {
            let error = source.bad_line(number, line, why);
            if hint.is_empty() { error } else { error.hint(hint) }
        })?;
        out.push(Line { source, number, text });
    }
    Ok(out)
}

fn check(line: &[u8]) -> Result<&str, (String, &'static str)> {
    let bad = |why: &str| (why.to_owned(), "");
    if line.is_empty() {
        return Err(bad("empty line between values"));
    }
    if line.len() > MAX_LINE {
        return Err((format!("longer than {MAX_LINE} bytes"), ""));
    }
    let text = std::str::from_utf8(line).map_err(|_| bad("not UTF-8"))?;
    if text.starts_with('\u{feff}') {
        return Err((
            "begins with a byte order mark".into(),
            "save the script as UTF-8 without a byte order mark",
        ));
    }
    match text.chars().find(|&c| c.is_control() && c != '\t') {
        None => Ok(text),
        Some('\r') => Err((
            "contains a carriage return".into(),
            "save the script with LF line ends: sed -i 's/\\r$//' FILE",
        )),
        Some('\0') => Err(bad("contains a NUL byte")),
        Some(_) => Err(bad("contains a control character")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source<'_> = Source { script: "bin/query", key: "env" };

    fn texts(output: &[u8]) -> Result<Vec<&str>> {
        Ok(lines(SOURCE, output)?.iter().map(|line| line.text).collect())
    }

    #[rstest::rstest]
    #[case(b"", &[])]
    #[case(b"\n", &[])]
    #[case(b"\n\n\n", &[])]
    #[case(b"a", &["a"])]
    #[case(b"a\nb\n", &["a", "b"])]
    #[case(b"a\n\n\n", &["a"])]
    #[case(b" a \t\n", &[" a \t"])]
    #[case("\u{e4}\n".as_bytes(), &["\u{e4}"])]
    fn lines_are_kept_verbatim(#[case] output: &[u8], #[case] expected: &[&str]) {
        assert_eq!(texts(output).unwrap(), expected);
    }

    #[rstest::rstest]
    #[case(b"a\n\nb\n", "line 2: \"\": empty line between values")]
    #[case(b"\na\n", "line 1: \"\": empty line between values")]
    #[case(b"a\r\n", "line 1: \"a\\r\": contains a carriage return")]
    #[case(b"a\nb\0c\n", "line 2: \"b\\0c\": contains a NUL byte")]
    #[case(b"\xef\xbb\xbfa\n", "line 1: \"\\u{feff}a\": begins with a byte order mark")]
    #[case(b"a\xffb\n", "line 1: \"a\\xffb\": not UTF-8")]
    #[case(b"\x1b[31mred\n", "line 1: \"\\u{1b}[31mred\": contains a control character")]
    #[case(b"\xc2\x9b31m\n", "contains a control character")]
    fn invalid_lines_are_refused(#[case] output: &[u8], #[case] says: &str) {
        let error = texts(output).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().starts_with("`bin/query env`"), "{error}");
        assert_eq!(error.kind(), crate::error::Kind::BadInput);
    }

    #[test]
    fn crlf_has_a_hint() {
        assert!(texts(b"a\r\n").unwrap_err().hint_text().unwrap().contains("LF"));
    }

    #[test]
    fn answers_are_bounded() {
        assert!(texts("a".repeat(MAX_LINE).as_bytes()).is_ok());
        let error = texts("a".repeat(MAX_LINE + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("longer than 4096 bytes"), "{error}");
        assert!(error.len() < 200, "{error}");
        assert!(texts("a\n".repeat(MAX_LINES).as_bytes()).is_ok());
        let error = texts("a\n".repeat(MAX_LINES + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than 1000 lines"), "{error}");
        let error = texts("a\n".repeat(MAX_ANSWER).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than 65536 bytes"), "{error}");
    }
}
