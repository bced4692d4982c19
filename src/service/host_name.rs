//! The host name of an instance: the same while it is set up and while it runs. Services store it in their data
//! (RabbitMQ the name of its node, a mail server its address), so another one may cost them that data.

use std::str::FromStr;

use super::name::default_name;
use crate::error::{Error, Result};
use crate::oci::{Image, Reference};

/// The label for the host name that the user has chosen at setup.
pub(crate) const LABEL_HOSTNAME: &str = "dev.servicepack.hostname";
/// The kernel's limit on a host name (`__NEW_UTS_LEN`).
const LONGEST: usize = 64;

/// A valid host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(String);

impl HostName {
    /// Returns the host name that the instance `tag` is set up under: the name of its service.
    pub(crate) fn of_instance(tag: &Reference) -> HostName {
        HostName::from_name(&tag.tagged())
    }

    /// Returns the host name that the instance in `image` was set up under. `None` if its labels don't tell.
    pub(crate) fn of_image(image: &Image) -> Option<HostName> {
        let config = image.config();
        if let Some(chosen) = config.label(LABEL_HOSTNAME) {
            return chosen.parse().ok();
        }
        let label = |name: &str| config.label(&format!("org.opencontainers.image.{name}"));
        let name = HostName::from_name(&format!("{}:{}", label("title")?, label("version")?));
        name.0.parse().ok()
    }

    fn from_name(image: &str) -> HostName {
        let mut name = default_name(image);
        while name.len() > LONGEST {
            name.pop();
        }
        HostName(name.trim_end_matches(['-', '.']).to_owned())
    }

    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let good = |label: &str| {
            let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            !label.is_empty() && plain && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() <= LONGEST && text.split('.').all(good) {
            return Ok(HostName(text.to_owned()));
        }
        Err(Error::usage(format!("invalid host name: {text:?}")).hint(
            "a host name consists of letters, digits and '-', in parts separated by '.', and has at \
             most 64 characters",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for name in ["a", "mail.example.org", "my_db-1", &"x".repeat(64)] {
            assert_eq!(name.parse::<HostName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "a..b", "-a", "a-", "a b", "a\nb", "ä", "a.", &"x".repeat(65)] {
            assert!(name.parse::<HostName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_instance_has_the_name_of_its_service() {
        for (tag, name) in [
            ("shop", "shop"),
            ("shop:2", "shop-2"),
            ("registry.example.com/team/shop:latest", "shop"),
            (&format!("{}:{}", "x".repeat(60), "abcdefgh"), &format!("{}-abc", "x".repeat(60))),
            (&format!("{}:a", "x".repeat(63)), &"x".repeat(63)),
        ] {
            assert_eq!(HostName::of_instance(&tag.parse().unwrap()).as_str(), name, "{tag}");
        }
    }
}
