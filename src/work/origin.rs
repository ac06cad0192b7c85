//! Servers that contents are fetched from.

use std::sync::Arc;

use reqwest::Url;

use crate::fetch::Token;
use crate::github::Installation;

/// Server and credentials for the contents of a host's repositories.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Name of the host, as in work items.
    pub host: String,
    /// Base of clone URLs: `{clone_url}/{owner}/{name}.git`.
    pub clone_url: Url,
    /// Access token for the repositories.
    pub token: Option<Token>,
    /// Reason for which there is no token, though there ought to be: what the configuration says of it cannot be used.
    pub without_token: Option<String>,
    /// Installation of a GitHub App, whose tokens are used if `token` is `None`.
    pub app: Option<Arc<Installation>>,
}
