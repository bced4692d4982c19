//! The name of a service or a volume.

use crate::error::{Error, Result};

/// Refuses names that could be taken for something else: in paths, in host names, on command lines.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage).
pub(crate) fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest && name.len() <= 63 {
        return Ok(());
    }
    Err(Error::usage(format!("invalid name: {name:?}")).hint(
        "a name consists of letters, digits, '_', '.' and '-', begins with a letter or digit, \
         and has at most 63 characters",
    ))
}

/// Returns the name that a service gets from its image's: `team/shop` gives `shop`, `shop:2` gives `shop-2`.
pub(crate) fn default_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.strip_suffix(":latest").unwrap_or(last).replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "my-db.1", "0x_y"] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "-a", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
