//! The servers that contents are fetched from.

use std::sync::Arc;

use reqwest::Url;
use secrecy::SecretString;

use crate::source::Installation;

/// Where the contents of a host's repositories come from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The host, as work items name it.
    pub host: String,
    /// The base of clone addresses: `{clone_url}/{owner}/{name}.git`.
    pub clone_url: Url,
    /// An access token for them.
    pub token: Option<SecretString>,
    /// An app's installation, whose tokens are used when there is no other.
    pub app: Option<Arc<Installation>>,
}

impl Origin {
    /// The host of a clone address, with its port unless it is the scheme's own.
    pub fn host_of(clone_url: &Url) -> String {
        let host = clone_url.host_str().unwrap_or_default();
        match clone_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}
