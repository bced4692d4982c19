//! A link as the user writes it: `NAME` or `NAME:ALIAS`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::check_name;
use crate::error::{Context, Error, Result};
use crate::pack::query::why_refused;

/// Names in every container's `/etc/hosts`.
const RESERVED: [&str; 5] = [
    "localhost",
    "ip6-localhost",
    "ip6-loopback",
    "host.containers.internal",
    "host.docker.internal",
];

/// A link to a service. Records hold it as text, so that a record without aliases is the same as before there were any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct LinkSpec {
    /// The name of the linked service.
    pub service: String,
    /// The name that it has inside, and with which its variables begin.
    pub alias: Option<String>,
}

impl LinkSpec {
    /// Returns the name that resolves to the linked service in any case.
    pub(crate) fn host_name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.service)
    }

    /// Returns what the names of its variables begin with: the alias in upper case, with `_` for other characters.
    pub(crate) fn prefix(&self) -> String {
        self.alias.as_deref().map(prefix).unwrap_or_default()
    }
}

/// Whether a host name is in `/etc/hosts` already, or is read as an address, so that it can't name a link.
pub(crate) fn is_reserved(name: &str) -> bool {
    let is_number = |part: &str| {
        let digits = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
        digits.map_or_else(
            || part.bytes().all(|b| b.is_ascii_digit()),
            |hex| hex.bytes().all(|b| b.is_ascii_hexdigit()),
        )
    };
    // inet_aton(3) reads 1, 127.1 and 0x7f.1 as addresses, too.
    name.split('.').all(is_number)
        || RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

fn prefix(alias: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    alias.chars().map(upper).chain(['_']).collect()
}

impl FromStr for LinkSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (service, alias) = match text.split_once(':') {
            Some((service, alias)) => (service, Some(alias)),
            None => (text, None),
        };
        check_name(service)?;
        if let Some(alias) = alias {
            check_alias(alias).context(format!("invalid link: {text:?}"))?;
        }
        Ok(LinkSpec { service: service.to_owned(), alias: alias.map(str::to_owned) })
    }
}

/// Checks a name that becomes both a host name and the beginning of variables' names.
fn check_alias(alias: &str) -> Result<()> {
    check_name(alias)?;
    let hint =
        "write NAME:ALIAS, where ALIAS becomes a host name and the beginning of variables' names";
    if !alias.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(
            Error::usage(format!("the alias {alias} doesn't begin with a letter")).hint(hint)
        );
    }
    if is_reserved(alias) {
        return Err(
            Error::usage(format!("{alias} already has a meaning as a host name")).hint(hint)
        );
    }
    match why_refused(&format!("{}X", prefix(alias))) {
        Some(why) => {
            Err(Error::usage(format!("no variable may begin with {}: it {why}", prefix(alias)))
                .hint("choose another alias"))
        }
        None => Ok(()),
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.alias {
            Some(alias) => write!(f, "{}:{alias}", self.service),
            None => f.write_str(&self.service),
        }
    }
}

impl TryFrom<String> for LinkSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LinkSpec> for String {
    fn from(link: LinkSpec) -> String {
        link.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("db", "db", "db", "")]
    #[case("db:main", "db", "main", "MAIN_")]
    #[case("my-db.1:read-only.2", "my-db.1", "read-only.2", "READ_ONLY_2_")]
    #[case("db:a_b", "db", "a_b", "A_B_")]
    // Only an alias must be usable as the beginning of a variable's name.
    #[case("1db", "1db", "1db", "")]
    #[case("redis-7.2", "redis-7.2", "redis-7.2", "")]
    fn links(#[case] text: &str, #[case] service: &str, #[case] host: &str, #[case] prefix: &str) {
        let link: LinkSpec = text.parse().unwrap();
        assert_eq!((link.service.as_str(), link.host_name()), (service, host));
        assert_eq!((link.prefix().as_str(), link.to_string().as_str()), (prefix, text));
    }

    #[test]
    fn names_that_resolve_to_something_else() {
        for name in ["1", "127.1", "0x7f.1", "10.0.0.1", "Localhost", "host.docker.internal"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["1db", "redis-7.2", "db.1", "0xyz", "localhost2"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[rstest::rstest]
    #[case("")]
    #[case(":a")]
    #[case("db:")]
    #[case("db:1a")]
    #[case("db:a b")]
    #[case("db:a:b")]
    #[case("db:a=b")]
    #[case("db:-a")]
    #[case("db:a\nb")]
    #[case("db:\u{e4}")]
    #[case("db:LocalHost")]
    #[case("db:host.containers.internal")]
    #[case("db:ld")]
    #[case("db:Svp")]
    #[case("db:bash-func")]
    fn invalid_links(#[case] text: &str) {
        assert!(text.parse::<LinkSpec>().is_err(), "{text:?}");
    }
}
