//! Secrets: made from the operating system's random source, and never printed by accident.

use std::fmt;

use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::error::{Error, Kind, Result};

/// How many characters a generated secret has.
pub const LENGTH: usize = 24;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A secret's value. It has no `Display`, and its `Debug` is redacted: to read it, say [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret that the user brought.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is empty, or has a NUL byte or a line end: it could not be an environment
    /// variable, nor be printed as a line.
    pub fn new(name: &str, value: String) -> Result<Self> {
        let why = if value.is_empty() {
            "is empty"
        } else if value.contains(['\0', '\n', '\r']) {
            "has a line end or a NUL byte in it"
        } else {
            return Ok(Secret(value));
        };
        Err(Error::usage(format!("the secret {name} {why}"))
            .hint("a secret is one line of text; a line end at the end of a file is not counted"))
    }

    /// A fresh secret of [`LENGTH`] characters of `[A-Za-z0-9]`, each as likely as another.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self> {
        let mut value = String::with_capacity(LENGTH);
        let mut bytes = [0u8; 64];
        while value.len() < LENGTH {
            SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
                Error::new(Kind::Storage, "the operating system gives no random bytes")
                    .source(std::io::Error::other(error.to_string()))
            })?;
            // 248 is the largest multiple of 62 in a byte: what lies above would favour some letters.
            let letters = bytes.iter().filter(|byte| **byte < 248);
            for byte in letters.take(LENGTH - value.len()) {
                value.push(char::from(ALPHABET[usize::from(*byte) % 62]));
            }
        }
        Ok(Secret(value))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_secrets_are_of_the_alphabet_and_differ() {
        let secrets: Vec<_> = (0..200).map(|_| Secret::generate().unwrap()).collect();
        let mut seen = std::collections::BTreeSet::new();
        for secret in &secrets {
            assert_eq!(secret.expose().len(), LENGTH);
            assert!(secret.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
            assert!(seen.insert(secret.expose().to_owned()));
        }
        let used: std::collections::BTreeSet<u8> =
            secrets.iter().flat_map(|s| s.expose().bytes()).collect();
        assert_eq!(used.len(), 62, "all of the alphabet is used");
    }

    #[test]
    fn debug_is_redacted_and_lines_are_refused() {
        let secret = Secret::new("X", "hunter2".into()).unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
        for bad in ["", "a\nb", "a\0b", "a\r"] {
            assert!(Secret::new("X", bad.into()).is_err());
        }
    }
}
