//! Servers that contents are fetched from.

use std::sync::Arc;

use reqwest::Url;
use secrecy::SecretString;

use crate::github::Installation;

/// Server and credentials for the contents of a host's repositories.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Name of the host, as in work items.
    pub host: String,
    /// Base of clone URLs: `{clone_url}/{owner}/{name}.git`.
    pub clone_url: Url,
    /// Access token for the repositories.
    pub token: Option<SecretString>,
    /// Installation of a GitHub App, whose tokens are used if `token` is `None`.
    pub app: Option<Arc<Installation>>,
}

impl Origin {
    /// Returns the host of a clone URL, with its port unless it is the default of the scheme.
    pub fn host_of(clone_url: &Url) -> String {
        let host = clone_url.host_str().unwrap_or_default();
        match clone_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}
