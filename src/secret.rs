//! Secrets: generated from the operating system's random source, and never printed by accident.

use std::fmt;

use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::error::{Error, Kind, Result};

/// The length of a generated secret, in characters.
pub(crate) const LENGTH: usize = 24;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A secret's value. It has no `Display`, and its `Debug` is redacted; [`Secret::expose`] reads it.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps a secret that the user supplies.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is empty or contains a NUL byte or a line end: it could not be an environment variable
    /// or be printed on one line.
    pub(crate) fn new(name: &str, value: String) -> Result<Self> {
        let why = if value.is_empty() {
            "is empty"
        } else if value.contains(['\0', '\n', '\r']) {
            "contains a line end or a NUL byte"
        } else {
            return Ok(Secret(value));
        };
        Err(Error::usage(format!("the secret {name} {why}"))
            .hint("use one line of text; a trailing line end in a file is ignored"))
    }

    /// Generates a secret of [`LENGTH`] characters of `[A-Za-z0-9]`, uniformly distributed.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the operating system returns no random bytes.
    pub(crate) fn generate() -> Result<Self> {
        let mut value = String::with_capacity(LENGTH);
        let mut bytes = [0u8; 64];
        while value.len() < LENGTH {
            SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
                Error::new(Kind::Storage, "can't read random bytes from the operating system")
                    .source(std::io::Error::other(error.to_string()))
            })?;
            // 248 is the largest multiple of 62 in a byte; higher values would favour some letters.
            let letters = bytes.iter().filter(|byte| **byte < 248);
            for byte in letters.take(LENGTH - value.len()) {
                value.push(char::from(ALPHABET[usize::from(*byte) % 62]));
            }
        }
        Ok(Secret(value))
    }

    /// Returns the secret in plain text.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Shorter secrets are not redacted: they would match parts of ordinary words.
const SHORTEST: usize = 4;

/// Removes secrets from a byte stream, even when one is split across chunks.
pub(crate) struct Redactor {
    /// Longest first, since one may be a prefix of another.
    secrets: Vec<Secret>,
    /// The bytes held back because they could begin a secret.
    held: Vec<u8>,
}

impl Redactor {
    /// The replacement for a secret.
    pub(crate) const MARK: &[u8] = b"***";

    /// Creates a redactor for `secrets`.
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut secrets: Vec<_> = secrets.filter(|s| s.0.len() >= SHORTEST).cloned().collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.0.len()));
        Redactor { secrets, held: Vec::new() }
    }

    /// Redacts the next chunk and passes the bytes that are safe to show to `show`.
    pub(crate) fn pass(&mut self, bytes: &[u8], show: &mut dyn FnMut(&[u8])) {
        self.held.extend_from_slice(bytes);
        self.show(false, show);
    }

    /// Passes the bytes that were held back to `show`; call it at the end of the stream.
    pub(crate) fn finish(&mut self, show: &mut dyn FnMut(&[u8])) {
        self.show(true, show);
    }

    fn show(&mut self, last: bool, show: &mut dyn FnMut(&[u8])) {
        let mut out = Vec::with_capacity(self.held.len());
        let mut rest = &self.held[..];
        while let Some((first, after)) = rest.split_first() {
            let begins = |s: &&Secret| s.0.len() > rest.len() && s.0.as_bytes().starts_with(rest);
            if !last && self.secrets.iter().any(|secret| begins(&secret)) {
                break;
            }
            match self.secrets.iter().find(|secret| rest.starts_with(secret.0.as_bytes())) {
                Some(secret) => {
                    out.extend_from_slice(Self::MARK);
                    rest = &rest[secret.0.len()..];
                }
                None => {
                    out.push(*first);
                    rest = after;
                }
            }
        }
        self.held = rest.to_vec();
        if !out.is_empty() {
            show(&out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_secrets_use_the_whole_alphabet_and_differ() {
        let secrets: Vec<_> = (0..200).map(|_| Secret::generate().unwrap()).collect();
        let mut seen = std::collections::BTreeSet::new();
        for secret in &secrets {
            assert_eq!(secret.expose().len(), LENGTH);
            assert!(secret.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
            assert!(seen.insert(secret.expose().to_owned()));
        }
        let used: std::collections::BTreeSet<u8> =
            secrets.iter().flat_map(|s| s.expose().bytes()).collect();
        assert_eq!(used.len(), 62, "the whole alphabet is used");
    }

    #[test]
    fn debug_is_redacted_and_invalid_secrets_are_refused() {
        let secret = Secret::new("X", "hunter2".into()).unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
        for bad in ["", "a\nb", "a\0b", "a\r"] {
            assert!(Secret::new("X", bad.into()).is_err());
        }
    }

    #[test]
    fn secrets_are_redacted_wherever_the_stream_is_split() {
        let secrets = ["hunter2", "hunter2more", "ab"].map(|s| Secret::new("X", s.into()).unwrap());
        let text = b"ab hunter hunter2 hunter2mor hunter2more huhunter2hunter2 hunt";
        let expected = "ab hunter *** ***mor *** hu****** hunt";
        for cut in 1..text.len() {
            let mut shown = Vec::new();
            let mut redactor = Redactor::new(secrets.iter());
            for piece in text.chunks(cut) {
                redactor.pass(piece, &mut |bytes| shown.extend_from_slice(bytes));
            }
            redactor.finish(&mut |bytes| shown.extend_from_slice(bytes));
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "cut at {cut}");
        }
    }
}
