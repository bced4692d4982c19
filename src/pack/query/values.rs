//! The parsers of every key but `ports`: bytes in, values out.

use std::fmt;

use super::lines::{Line, Source, lines, shorten};
use super::names::check_name;
use crate::error::{Error, Result};

/// The longest path of a volume, in bytes.
const MAX_PATH: usize = 1024;

/// The operating system that a pack builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Os {
    /// Such as `debian`: a repository of that name has its images.
    pub name: String,
    /// Such as `12`: the image's tag.
    pub version: String,
}

impl fmt::Display for Os {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// One line of `query env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// `[A-Za-z_][A-Za-z0-9_]*`, none that changes how programs load.
    pub name: String,
    /// As the pack wrote it: `%IP` is not replaced.
    pub value: String,
}

/// The key in an env value that stands for the container's address.
const IP: &str = "%IP";

impl EnvVar {
    /// Whether the value names the container's address, which is not known before it runs.
    pub fn needs_ip(&self) -> bool {
        self.next_ip(0).is_some()
    }

    /// The value with every `%IP` replaced; other text with `%`, such as `%IPX` or `%%`, stays.
    pub fn with_ip(&self, address: &str) -> String {
        let mut out = String::new();
        let mut rest = 0;
        while let Some(at) = self.next_ip(rest) {
            out += &self.value[rest..at];
            out += address;
            rest = at + IP.len();
        }
        out + &self.value[rest..]
    }

    /// Where the next `%IP` begins that no letter, digit or underscore follows.
    fn next_ip(&self, mut from: usize) -> Option<usize> {
        loop {
            let at = from + self.value[from..].find(IP)?;
            from = at + IP.len();
            let next = self.value.as_bytes().get(from);
            if !next.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
                return Some(at);
            }
        }
    }
}

impl fmt::Display for EnvVar {
    /// `NAME=VALUE`, unquoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Parses each line, refusing a value that an earlier line had.
pub(super) fn unique<'a, T: PartialEq>(
    lines: &[Line<'a>],
    parse: impl Fn(&Line<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(lines.len());
    for line in lines {
        let value = parse(line)?;
        if out.contains(&value) {
            return Err(line.bad("twice"));
        }
        out.push(value);
    }
    Ok(out)
}

/// The one line of an answer that takes one.
fn sole<'a>(source: Source<'a>, output: &'a [u8]) -> Result<Option<Line<'a>>> {
    let lines = lines(source, output)?;
    match lines[..] {
        [] => Ok(None),
        [line] => Ok(Some(line)),
        [_, second, ..] => Err(second.bad("only one line is expected")),
    }
}

/// Parses `query version`: nothing or `0`, the version of the servicepack API that this svp speaks.
pub fn parse_version(output: &[u8], script: &str) -> Result<u32> {
    match sole(Source { script, key: "version" }, output)? {
        None => Ok(0),
        Some(line) if line.text == "0" => Ok(0),
        Some(line) => Err(line
            .bad("a version of the servicepack API that is not understood")
            .hint("this svp speaks version 0: a pack prints 0 or nothing for `version`")),
    }
}

/// Parses `query os`: `NAME/VERSION`, such as `debian/12`.
///
/// NAME is as a repository's name component, `[a-z0-9]+([._-]+[a-z0-9]+)*`; VERSION is as a tag,
/// `[A-Za-z0-9_][A-Za-z0-9._-]*`, at most 128 characters each. It is the one key that must be answered.
pub fn parse_os(output: &[u8], script: &str) -> Result<Os> {
    let source = Source { script, key: "os" };
    let hint = "print NAME/VERSION of the operating system to build on, such as debian/12";
    let Some(line) = sole(source, output)? else {
        return Err(source
            .bad("prints nothing, and a pack must say its operating system")
            .hint(hint));
    };
    let bad = |why: &str| line.bad(why).hint(hint);
    let Some((name, version)) = line.text.split_once('/') else {
        return Err(bad("not NAME/VERSION"));
    };
    if !is_os_name(name) {
        return Err(bad(
            "the name may have lower-case letters, digits and, between them, any of . _ -",
        ));
    }
    if !is_os_version(version) {
        return Err(bad("the version may have letters, digits and any of . _ -"));
    }
    Ok(Os { name: name.to_owned(), version: version.to_owned() })
}

fn is_os_name(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().next_back()];
    name.len() <= 128
        && ends.iter().all(|end| end.is_some_and(alphanumeric))
        && name.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn is_os_version(version: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    version.len() <= 128
        && version.bytes().next().is_some_and(word)
        && version.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Parses `query secrets`: a variable's name a line, none twice.
pub fn parse_secrets(output: &[u8], script: &str) -> Result<Vec<String>> {
    unique(&lines(Source { script, key: "secrets" }, output)?, |line| {
        check_name(line.text).map_err(|problem| line.bad(problem))?;
        Ok(line.text.to_owned())
    })
}

/// Parses `query env`: `NAME=VALUE` a line, no name twice. The value is everything after the first `=`,
/// taken as it is: spaces, quotes and further `=` included.
pub fn parse_env(output: &[u8], script: &str) -> Result<Vec<EnvVar>> {
    let lines = lines(Source { script, key: "env" }, output)?;
    let mut out: Vec<EnvVar> = Vec::with_capacity(lines.len());
    for line in &lines {
        let Some((name, value)) = line.text.split_once('=') else {
            return Err(line.bad("not NAME=VALUE"));
        };
        check_name(name).map_err(|problem| line.bad(problem))?;
        if out.iter().any(|earlier| earlier.name == name) {
            return Err(line.bad(format_args!("{} twice", shorten(name.as_bytes()))));
        }
        out.push(EnvVar { name: name.to_owned(), value: value.to_owned() });
    }
    Ok(out)
}

/// Whether `name` can name a component: `[A-Za-z0-9][A-Za-z0-9._-]*`, at most 63 characters.
pub(crate) fn is_component(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Parses `query components`: a name a line, `[A-Za-z0-9][A-Za-z0-9._-]*`, at most 63 characters, none
/// twice.
pub fn parse_components(output: &[u8], script: &str) -> Result<Vec<String>> {
    unique(&lines(Source { script, key: "components" }, output)?, |line| {
        if is_component(line.text) {
            return Ok(line.text.to_owned());
        }
        Err(line.bad("a component's name has letters, digits and any of . _ -, at most 63"))
    })
}

/// Parses `query volumes`: a directory a line, an absolute path without `.`, `..`, `//`, `:` and `,` and
/// without a slash at its end; not `/`, `/service`, or anything of `/proc`, `/sys` and `/dev`.
pub fn parse_volumes(output: &[u8], script: &str) -> Result<Vec<String>> {
    unique(&lines(Source { script, key: "volumes" }, output)?, |line| {
        check_volume(line.text).map_err(|why| line.bad(why))?;
        Ok(line.text.to_owned())
    })
}

fn check_volume(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("a volume is an absolute path");
    }
    if path == "/" || path == "/service" {
        return Err("can't be a volume: it would hide the image");
    }
    if path.len() > MAX_PATH {
        return Err("longer than 1024 bytes");
    }
    let mut parts = path[1..].split('/');
    if parts.any(|part| matches!(part, "" | "." | "..")) {
        return Err("a volume's path has no `.`, `..`, `//` and no `/` at its end");
    }
    if path.contains([':', ',']) {
        return Err("a volume's path can't have a colon or a comma");
    }
    if matches!(path[1..].split('/').next(), Some("proc" | "sys" | "dev")) {
        return Err("can't be a volume: the system is there");
    }
    Ok(())
}

/// Parses `query health`: one line, a command that `/bin/sh -c` runs at `/service` in the running
/// service; exit code 0 means healthy. `None` where the pack has none.
pub fn parse_health(output: &[u8], script: &str) -> Result<Option<String>> {
    let line = sole(Source { script, key: "health" }, output)?;
    match line {
        Some(line) if line.text.trim().is_empty() => Err(line.bad("not a command")),
        _ => Ok(line.map(|line| line.text.to_owned())),
    }
}

/// That a secret's name is also an env variable's, whose value everyone may see.
pub(super) fn overlap(secrets: &[String], env: &[EnvVar], script: &str) -> Result<()> {
    match env.iter().find(|var| secrets.contains(&var.name)) {
        None => Ok(()),
        Some(var) => {
            Err(Error::bad_input(format!("`{script} env` repeats the secret {}", var.name))
                .hint("svp makes the secret's value: `query env` must leave the name out"))
        }
    }
}

#[cfg(test)]
mod tests;
