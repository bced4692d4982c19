//! Parses the answers to every key but `ports`.

use std::fmt;

use super::lines::{Line, Source, lines, shorten};
use super::names::check_name;
use crate::error::{Error, Result};

/// The maximum length of a volume's path, in bytes.
const MAX_PATH: usize = 1024;

/// The operating system that a pack builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Os {
    /// The repository of its images, such as `debian`.
    pub name: String,
    /// The tag of the image, such as `12`.
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
    /// Matches `[A-Za-z_][A-Za-z0-9_]*`; never a variable that a pack may not set.
    pub name: String,
    /// The value as the pack printed it: `%IP` is not replaced.
    pub value: String,
}

/// The placeholder for the container's address in an env value.
const IP: &str = "%IP";

impl EnvVar {
    /// Returns whether the value contains the container's address, which is unknown until the container runs.
    pub fn needs_ip(&self) -> bool {
        self.next_ip(0).is_some()
    }

    /// Returns the value with every `%IP` replaced; other text with `%`, such as `%IPX` or `%%`, is kept.
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

    /// Finds the next `%IP` that is not followed by a letter, digit or underscore.
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
    /// Formats the variable as `NAME=VALUE`, unquoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Parses each line and refuses duplicate values.
pub(super) fn unique<'a, T: PartialEq>(
    lines: &[Line<'a>],
    parse: impl Fn(&Line<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(lines.len());
    for line in lines {
        let value = parse(line)?;
        if out.contains(&value) {
            return Err(line.bad("duplicate"));
        }
        out.push(value);
    }
    Ok(out)
}

/// Returns the only line of an answer, `None` if it is empty; refuses a second line.
pub(super) fn sole<'a>(source: Source<'a>, output: &'a [u8]) -> Result<Option<Line<'a>>> {
    let lines = lines(source, output)?;
    match lines[..] {
        [] => Ok(None),
        [line] => Ok(Some(line)),
        [_, second, ..] => Err(second.bad("only one line is expected")),
    }
}

/// Parses `query version`: nothing or `0`, the version of the servicepack API that this svp supports.
pub fn parse_version(output: &[u8], script: &str) -> Result<u32> {
    match sole(Source { script, key: "version" }, output)? {
        None => Ok(0),
        Some(line) if line.text == "0" => Ok(0),
        Some(line) => Err(line
            .bad("unsupported version of the servicepack API")
            .hint("print 0 or nothing for `version`: this svp supports version 0")),
    }
}

/// Parses `query os`: `NAME/VERSION`, such as `debian/12`.
///
/// NAME is a repository name component, `[a-z0-9]+([._-]+[a-z0-9]+)*`; VERSION is a tag,
/// `[A-Za-z0-9_][A-Za-z0-9._-]*`; at most 128 characters each. This is the only mandatory key.
pub fn parse_os(output: &[u8], script: &str) -> Result<Os> {
    let source = Source { script, key: "os" };
    let hint = "print NAME/VERSION of the operating system to build on, such as debian/12";
    let Some(line) = sole(source, output)? else {
        return Err(source
            .bad("prints nothing, but a pack must name its operating system")
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

/// Parses `query secrets`: one variable name per line, without duplicates.
pub fn parse_secrets(output: &[u8], script: &str) -> Result<Vec<String>> {
    unique(&lines(Source { script, key: "secrets" }, output)?, |line| {
        check_name(line.text).map_err(|problem| line.bad(problem))?;
        Ok(line.text.to_owned())
    })
}

/// Parses `query env`: one `NAME=VALUE` per line, without duplicate names. The value is everything after the
/// first `=`, verbatim: spaces, quotes and further `=` included.
pub fn parse_env(output: &[u8], script: &str) -> Result<Vec<EnvVar>> {
    let lines = lines(Source { script, key: "env" }, output)?;
    let mut out: Vec<EnvVar> = Vec::with_capacity(lines.len());
    for line in &lines {
        let Some((name, value)) = line.text.split_once('=') else {
            return Err(line.bad("not NAME=VALUE"));
        };
        check_name(name).map_err(|problem| line.bad(problem))?;
        if out.iter().any(|earlier| earlier.name == name) {
            return Err(line.bad(format_args!("duplicate {}", shorten(name.as_bytes()))));
        }
        out.push(EnvVar { name: name.to_owned(), value: value.to_owned() });
    }
    Ok(out)
}

/// Returns whether `name` is a valid component name: `[A-Za-z0-9][A-Za-z0-9._-]*`, at most 63 characters.
pub(crate) fn is_component(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Parses `query components`: one name per line, `[A-Za-z0-9][A-Za-z0-9._-]*`, at most 63 characters, without
/// duplicates.
pub fn parse_components(output: &[u8], script: &str) -> Result<Vec<String>> {
    unique(&lines(Source { script, key: "components" }, output)?, |line| {
        if is_component(line.text) {
            return Ok(line.text.to_owned());
        }
        Err(line.bad("invalid component name: use letters, digits and any of . _ -, at most 63"))
    })
}

/// Parses `query volumes`: one directory per line, an absolute path without `.`, `..`, `//`, `:`, `,` and trailing
/// slash; not `/`, `/service`, or anything below `/proc`, `/sys` and `/dev`.
pub fn parse_volumes(output: &[u8], script: &str) -> Result<Vec<String>> {
    unique(&lines(Source { script, key: "volumes" }, output)?, |line| {
        check_volume(line.text).map_err(|why| line.bad(why))?;
        Ok(line.text.to_owned())
    })
}

fn check_volume(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("not an absolute path");
    }
    if path == "/" || path == "/service" {
        return Err("can't be a volume: it would hide the image");
    }
    if path.len() > MAX_PATH {
        return Err("longer than 1024 bytes");
    }
    let mut parts = path[1..].split('/');
    if parts.any(|part| matches!(part, "" | "." | "..")) {
        return Err("a volume's path can't contain `.`, `..`, `//` or a trailing `/`");
    }
    if path.contains([':', ',']) {
        return Err("a volume's path can't contain a colon or a comma");
    }
    if matches!(path[1..].split('/').next(), Some("proc" | "sys" | "dev")) {
        return Err("can't be a volume: reserved for the system");
    }
    Ok(())
}

/// Refuses a secret that is also an env variable, whose value is public.
pub(super) fn overlap(secrets: &[String], env: &[EnvVar], script: &str) -> Result<()> {
    match env.iter().find(|var| secrets.contains(&var.name)) {
        None => Ok(()),
        Some(var) => {
            Err(Error::bad_input(format!("`{script} env` repeats the secret {}", var.name))
                .hint("remove the name from `query env`: svp generates the secret's value"))
        }
    }
}

#[cfg(test)]
mod tests;
