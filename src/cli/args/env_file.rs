//! Parses the files of `--env-file`.
//!
//! The language is docker's, with the quotes, `export` and values of several lines of podman's and compose's files.
//! Anything else is an error with its line: a variable is never dropped or altered in silence.

use std::path::Path;

use super::EnvArg;
use super::variable::check_name;
use crate::error::{Error, IoContext, Result};

/// The largest file, in bytes. The kernel passes no larger environment to a program.
const LARGEST: u64 = 8 << 20;

/// The longest variable in bytes, with its `=` and a NUL byte: the kernel's MAX_ARG_STRLEN.
const LONGEST: usize = 128 << 10;

/// Reads the variables of the file `path`; those without a value that svp's own environment lacks are left out.
///
/// # Errors
/// [`Kind::Storage`](crate::error::Kind::Storage) if the file can't be read, [`Kind::Usage`](crate::error::Kind::Usage)
/// for text that is no variable, with its line.
pub(in crate::cli) fn read(path: &Path) -> Result<Vec<EnvArg>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).io("open", path)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).io("read", path)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{}: larger than 8 MiB", path.display())));
    }
    parse(&bytes, |name| std::env::var_os(name)).map_err(|(line, problem)| {
        Error::usage(format!("{}, line {line}: {problem}", path.display())).hint(
            "write one variable per line: NAME=VALUE, NAME='VALUE', NAME=\"VALUE\", or NAME for svp's own value",
        )
    })
}

/// The number of a line, from 1, and the reason why it is refused.
type Refused = (usize, String);

/// Parses a file's content. `inherited` returns a variable of svp's own environment.
fn parse(
    bytes: &[u8],
    inherited: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Vec<EnvArg>, Refused> {
    let line_of = |at: usize| 1 + bytes[..at].iter().filter(|b| **b == b'\n').count();
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (line_of(error.valid_up_to()), "the text is not UTF-8".to_owned()))?;
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err((line_of(at), "a NUL byte: no program can get a variable with one".into()));
    }
    // Editors on Windows begin files with a byte order mark.
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Vec::new();
    while !rest.is_empty() {
        let number = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let line = rest.split('\n').next().unwrap_or_default();
        let after_line = rest.get(line.len() + 1..).unwrap_or_default();
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after_line;
            continue;
        }
        let begin = without_export(line.trim_start());
        match begin.split_once('=') {
            None => {
                let name = begin.trim_end();
                check(name, number)?;
                match inherited(name).map(std::ffi::OsString::into_string) {
                    Some(Ok(value)) => variables.push(EnvArg { name: name.to_owned(), value }),
                    Some(Err(_)) => {
                        return Err((number, format!("svp's own value of {name} is not UTF-8")));
                    }
                    None => {}
                }
                rest = after_line;
            }
            Some((name, value)) => {
                check(name, number)?;
                let from = line.len() - value.len();
                let (value, end) = match value.chars().next() {
                    Some(quote @ ('"' | '\'')) => {
                        quoted(&rest[from + 1..], quote).map_err(|problem| (number, problem))?
                    }
                    _ => (plain(value).map_err(|problem| (number, problem))?, after_line),
                };
                if name.len() + value.len() + 2 > LONGEST {
                    return Err((number, format!("{name} is too long: no program can get it")));
                }
                variables.push(EnvArg { name: name.to_owned(), value });
                rest = end;
            }
        }
    }
    Ok(variables)
}

/// Returns an unquoted value: the rest of its line.
fn plain(value: &str) -> Result<String, String> {
    let value = value.strip_suffix('\r').unwrap_or(value);
    // Otherwise the first variable of a file with the line ends of old Macs would swallow all others.
    if value.contains('\r') {
        return Err("a carriage return within a line: write \\r in double quotes".into());
    }
    Ok(value.to_owned())
}

/// Strips the `export` that lets a shell read the file too.
fn without_export(line: &str) -> &str {
    match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    }
}

fn check(name: &str, line: usize) -> Result<(), Refused> {
    check_name(name).map_err(|problem| (line, problem))
}

/// Parses a quoted value, which may span lines; `text` begins after the opening quote. Returns the value and the text
/// after its last line.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            c if c == quote => return Ok((value, after_quote(&text[at + 1..], quote)?)),
            '\r' if text[at + 1..].starts_with('\n') => {}
            '\\' if quote == '"' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(escaped @ ('"' | '\\' | '$' | '`')) => value.push(escaped),
                // As in a shell: the line goes on.
                Some('\n') => {}
                Some(other) => value.extend(['\\', other]),
                None => {}
            },
            other => value.push(other),
        }
    }
    Err(format!("the quote {quote} is not closed"))
}

/// Returns the text after the line on which a quote was closed; only a comment may follow on it.
fn after_quote(text: &str, quote: char) -> Result<&str, String> {
    let line = text.split('\n').next().unwrap_or_default();
    let trimmed = line.trim();
    let comment = trimmed.starts_with('#') && line.starts_with([' ', '\t']);
    if trimmed.is_empty() || comment {
        Ok(text.get(line.len() + 1..).unwrap_or_default())
    } else {
        Err(format!("{trimmed:?} after the closing {quote}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Option<std::ffi::OsString> {
        (name == "OWN").then(|| "from svp".into())
    }

    #[rstest::rstest]
    #[case("A=1\nB=2", &[("A", "1"), ("B", "2")])]
    #[case("\u{feff}A=1\r\nB=\r\n", &[("A", "1"), ("B", "")])]
    #[case("# comment\n\n  # another\n  A=1\n", &[("A", "1")])]
    // Without quotes a value is the rest of the line, as in docker.
    #[case("A= b # c \n", &[("A", " b # c ")])]
    #[case("A=b'c\"d\\n$x\n", &[("A", "b'c\"d\\n$x")])]
    #[case("A=x=y", &[("A", "x=y")])]
    #[case("OWN\nNOT_SET\nexport OWN\n", &[("OWN", "from svp"), ("OWN", "from svp")])]
    #[case("export A=1\n\texport\tB='2'\nexport=3\n", &[("A", "1"), ("B", "2"), ("export", "3")])]
    #[case("A='it\\s \"x\"' # comment\n", &[("A", "it\\s \"x\"")])]
    #[case(r#"A="a\tb\n\"\\\$\q""#, &[("A", "a\tb\n\"\\$\\q")])]
    #[case("K=\"-----BEGIN\r\nx=y\r\n# no comment\r\n-----END\"\r\nB=1\r\n", &[("K", "-----BEGIN\nx=y\n# no comment\n-----END"), ("B", "1")])]
    #[case("K='a\n\nb'  \nB=1", &[("K", "a\n\nb"), ("B", "1")])]
    #[case("A=\"\"\nB=''\n", &[("A", ""), ("B", "")])]
    #[case("discovery.type=x\nA-B=y\n1=z\n", &[("discovery.type", "x"), ("A-B", "y"), ("1", "z")])]
    #[case("A=1\nA=2\n", &[("A", "1"), ("A", "2")])]
    #[case("", &[])]
    fn variables(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let found = parse(text.as_bytes(), own).unwrap();
        let found: Vec<_> = found.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[rstest::rstest]
    #[case(b"A=1\nB=x\0y\n", 2, "NUL")]
    #[case(b"A=1\n\nB=\xff\n", 3, "not UTF-8")]
    #[case(b"A=1\n=x\n", 2, "invalid variable name: \"\"")]
    #[case(b"A =1\n", 1, "invalid variable name: \"A \"")]
    #[case(b"A B\n", 1, "invalid variable name: \"A B\"")]
    #[case(b"export A B=1\n", 1, "invalid variable name: \"A B\"")]
    #[case(b"A: 1\n", 1, "invalid variable name: \"A: 1\"")]
    #[case(b"A=1\nB='x\nC=2\n", 2, "the quote ' is not closed")]
    #[case(b"A=\"x\\\"\n", 1, "the quote \" is not closed")]
    #[case(b"A=1\n\nB=\"x\"y\n", 3, "\"y\" after the closing \"")]
    #[case(b"A=1\rB=2\rC=3\r", 1, "a carriage return")]
    #[case(b"A='x'#y\n", 1, "\"#y\" after the closing '")]
    #[case(b"A='a\nb'\nB='c' d\n", 3, "\"d\" after the closing '")]
    fn refusals(#[case] text: &[u8], #[case] line: usize, #[case] problem: &str) {
        let (found, said) = parse(text, own).unwrap_err();
        assert_eq!(found, line, "{said}");
        assert!(said.contains(problem), "{said}");
    }

    #[test]
    fn a_variable_that_the_kernel_would_refuse_is_refused_with_its_line() {
        let file = |length: usize| format!("B=\nAB={}\n", "x".repeat(length)).into_bytes();
        assert_eq!(parse(&file(LONGEST - 4), own).unwrap().len(), 2);
        assert_eq!(parse(&file(LONGEST - 3), own).unwrap_err().0, 2);
    }

    proptest::proptest! {
        #[test]
        fn what_svp_prints_is_what_it_reads(values in proptest::collection::vec("[^\0]{0,12}", 1..4)) {
            let named = |(n, value): (usize, &String)| (format!("A{n}"), value.clone());
            let environment: Vec<_> = values.iter().enumerate().map(named).collect();
            let text = crate::cli::args::environment_text(&environment, crate::cli::args::EnvFormat::Dotenv);
            let found = parse(text.unwrap().as_bytes(), own).unwrap();
            proptest::prop_assert_eq!(EnvArg::pairs(&found), environment);
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[^\0\r]{0,40}") {
            let escaped: String = value
                .chars()
                .flat_map(|c| (matches!(c, '"' | '\\')).then_some('\\').into_iter().chain([c]))
                .collect();
            let found = parse(format!("A=\"{escaped}\"\nB=1\n").as_bytes(), own).unwrap();
            proptest::prop_assert_eq!(&found[0].value, &value);
            proptest::prop_assert_eq!(&found[1].value, "1");
        }

        #[test]
        fn any_text_terminates(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(parse(&text, own));
        }
    }
}
