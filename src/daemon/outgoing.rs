//! Permitted destinations of outgoing requests, and the clients that send them.

use reqwest::{Client, Url};

use crate::config::Config;
use crate::fetch::{Guard, HttpClientError, guarded_client, verbatim_client};

/// HTTP clients that connect to permitted destinations only.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    /// Client for APIs and archives.
    pub(super) api: Client,
    /// Client for git servers.
    pub(super) git: Client,
}

impl Clients {
    /// Creates the clients.
    ///
    /// # Errors
    /// Returns an error if the operating system prevents the setup.
    pub(super) fn new(config: &Config) -> Result<Self, HttpClientError> {
        let guard = guard(config);
        Ok(Self {
            api: guarded_client(&guard)?,
            git: verbatim_client(&guard)?,
        })
    }
}

/// Returns a guard that permits configured addresses anywhere, and all others only on the public internet.
pub(super) fn guard(config: &Config) -> Guard {
    let mut named: Vec<&Url> = Vec::new();
    for source in &config.sources {
        named.push(&source.clone_url);
        named.push(source.kind.url());
    }
    for (_, webhook) in config.webhooks.each() {
        named.extend(&webhook.clone_url);
        named.extend(&webhook.clone_hosts);
    }
    let redelivery = config.webhooks.redelivery.iter();
    named.extend(redelivery.map(|redelivery| &redelivery.api_url));
    for (_, partner) in config.partners.each() {
        named.extend(&partner.public_keys_url);
    }
    let named: Vec<Url> = named.into_iter().cloned().collect();
    Guard::trusting(&named)
}
