//! Parses a script's first line as the kernel does.

/// The number of bytes of the first line that the kernel reads, including the line feed.
const MAX_LINE: usize = 255;

/// The way in which the kernel starts a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// Runs the interpreter at this absolute path with this argument.
    Interpreter(&'a str, Option<&'a str>),
    /// Runs the file itself: an ELF program.
    Program,
    /// Fails, for this reason.
    Bad(&'static str),
}

/// Determines how a file that begins with `head` is started. `head` has at least 256 bytes, or the whole file.
pub(super) fn start(head: &[u8]) -> Start<'_> {
    if head.starts_with(b"\x7fELF") {
        return Start::Program;
    }
    let head = match head.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if rest.starts_with(b"#!") => {
            return Start::Bad("begins with a byte order mark, which hides its #! line");
        }
        _ => head,
    };
    let Some(rest) = head.strip_prefix(b"#!") else {
        return Start::Bad("has no #! line that names its interpreter");
    };
    let Some(line) = rest.split(|&byte| byte == b'\n').next().filter(|l| l.len() + 3 <= MAX_LINE)
    else {
        return Start::Bad("has a #! line longer than the 255 bytes that the kernel reads");
    };
    if line.ends_with(b"\r") {
        return Start::Bad(
            "has a #! line that ends in CRLF: the kernel makes the CR part of the name",
        );
    }
    let Ok(line) = std::str::from_utf8(line) else {
        return Start::Bad("has a #! line that is not UTF-8");
    };
    let line = line.trim_matches([' ', '\t']);
    let (interpreter, argument) = match line.split_once([' ', '\t']) {
        Some((interpreter, argument)) => {
            (interpreter, Some(argument.trim_start_matches([' ', '\t'])))
        }
        None => (line, None),
    };
    match interpreter {
        "" => Start::Bad("has a #! line that names no interpreter"),
        name if !name.starts_with('/') => {
            Start::Bad("has a #! line whose interpreter is not an absolute path")
        }
        name => Start::Interpreter(name, argument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("#!/bin/sh\necho", "/bin/sh", None)]
    #[case("#!/bin/sh", "/bin/sh", None)]
    #[case("#! /bin/sh -eu \n", "/bin/sh", Some("-eu"))]
    #[case("#!/usr/bin/env  python3 -u\n", "/usr/bin/env", Some("python3 -u"))]
    fn interpreters_are_found(
        #[case] text: &str,
        #[case] interpreter: &str,
        #[case] argument: Option<&str>,
    ) {
        assert_eq!(start(text.as_bytes()), Start::Interpreter(interpreter, argument));
    }

    #[rstest::rstest]
    #[case(b"", "no #! line")]
    #[case(b"echo hi\n", "no #! line")]
    #[case(b"\n#!/bin/sh\n", "no #! line")]
    #[case(b"#!\n", "names no interpreter")]
    #[case(b"#!/bin/sh\r\n", "CRLF")]
    #[case(b"#!sh\n", "absolute")]
    #[case(b"#!/bin/\xff\n", "UTF-8")]
    #[case(b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark")]
    fn files_that_the_kernel_will_not_start(#[case] head: &[u8], #[case] says: &str) {
        assert!(matches!(start(head), Start::Bad(why) if why.contains(says)), "{:?}", start(head));
    }

    #[test]
    fn a_line_longer_than_255_bytes_is_refused() {
        let line = |n: usize| format!("#!/{}\n", "x".repeat(n));
        assert!(matches!(start(line(251).as_bytes()), Start::Interpreter(..)));
        assert!(matches!(start(line(252).as_bytes()), Start::Bad(why) if why.contains("255")));
        assert_eq!(start(b"\x7fELF\x02"), Start::Program);
    }
}
