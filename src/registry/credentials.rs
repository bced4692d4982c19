//! Credentials for a registry.

use std::fmt;

use serde::Deserialize;

/// A secret string, redacted in Debug output.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Password(text.into())
    }

    /// Returns the secret text; only for requests, never for output.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The credentials for a registry from an auth file or a credential helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A name and its password.
    Basic {
        /// The user's name.
        username: String,
        /// The user's password.
        password: Password,
    },
    /// An OAuth2 refresh token, to be exchanged at the token server.
    IdentityToken(Password),
    /// A bearer token that the registry accepts directly.
    RegistryToken(Password),
}
