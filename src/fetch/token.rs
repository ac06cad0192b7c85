//! Access tokens for git servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};

/// Name in which an access token is presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenUser {
    /// A user of this name, with the token as the password.
    Named(String),
    /// The token itself, with the password `x-oauth-basic`.
    Itself,
}

/// An access token and the name in which it is presented, by `Authorization: Basic` (RFC 7617).
#[derive(Debug, Clone)]
pub struct Token {
    user: TokenUser,
    secret: SecretString,
}

impl Token {
    /// Creates the credentials that consist of a token and the name in which it is presented.
    pub fn new(user: TokenUser, secret: SecretString) -> Self {
        Self { user, secret }
    }

    /// Returns whether both present the same in the same name.
    pub fn is(&self, other: &Self) -> bool {
        self.user == other.user && self.expose() == other.expose()
    }

    pub(super) fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Returns the value of the header `Authorization`.
    ///
    /// # Errors
    /// Returns an error if it cannot be a header.
    pub(super) fn authorization(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        let pair = match &self.user {
            TokenUser::Named(user) => format!("{user}:{}", self.expose()),
            TokenUser::Itself => format!("{}:x-oauth-basic", self.expose()),
        };
        let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(pair)))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
