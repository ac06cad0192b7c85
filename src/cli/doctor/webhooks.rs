//! Checks of the webhooks: their secrets, and the servers from which pushed contents are read.

use secrecy::ExposeSecret as _;

use super::Check;
use crate::config::{Config, Webhook};
use crate::daemon::content_servers;
use crate::forge::Forge;

/// Minimum length of a secret in bytes. A shorter one could be guessed.
const SHORT: usize = 16;

/// Host of github.com's API.
const PUBLIC_API: &str = "api.github.com";

/// Returns the number of webhooks that accept deliveries.
pub(super) fn count(config: &Config) -> usize {
    config.webhooks.accepting().count()
}

/// Checks each configured webhook. Without a secret it has no endpoint, and with one that can be guessed it accepts
/// deliveries from anybody.
pub(super) fn examine(config: &Config) -> Vec<Check> {
    let webhooks = config.webhooks.each().into_iter();
    let checks = webhooks.filter_map(|(forge, webhook)| {
        let name = forge.source();
        if webhook.secrets.is_empty() {
            let is_meant = webhook.clone_url.is_some()
                || webhook.token.is_some()
                || !webhook.clone_hosts.is_empty();
            let mend = format!(
                "set webhooks.{}.secrets to what the forge signs with",
                forge.name()
            );
            let what = "it has no secret, so it takes no delivery";
            return is_meant.then(|| Check::misconfigured(name, what, mend));
        }
        let short = webhook
            .secrets
            .iter()
            .any(|secret| secret.expose_secret().len() < SHORT);
        if short {
            let what = format!("a secret is shorter than {SHORT} characters and could be guessed");
            let mend = "make a longer one, for example with `openssl rand -hex 32`; both may stand in the list while you change it";
            return Some(Check::warning(name, what, mend));
        }
        Some(places(config, forge, webhook))
    });
    checks.collect()
}

/// Checks the servers from which contents are read: those that the configuration names, or else the forge's own on
/// the internet. An operator of Gitea, or of an API other than github.com's, has a server of their own; others may
/// not.
fn places(config: &Config, forge: Forge, webhook: &Webhook) -> Check {
    let name = forge.source();
    let secrets = match webhook.secrets.len() {
        1 => "1 secret".to_owned(),
        count => format!("{count} secrets"),
    };
    let servers = content_servers(config, forge);
    let list = servers.servers.join(", ");
    let key = format!("webhooks.{}", forge.name());
    if servers.is_fixed && !webhook.clone_hosts.is_empty() {
        let what = format!(
            "{secrets}; contents are read from {list} only: {key}.clone_hosts is not used, because {key}.clone_url, or \
             that of a source, comes first"
        );
        let mend = format!("remove {key}.clone_hosts, or the clone_url that comes first");
        return Check::warning(name, what, mend);
    }
    let is_own = |server: &String| !forge.public_servers().contains(&server.as_str());
    if servers.servers.iter().any(is_own) {
        return Check::ok(
            name,
            format!("{secrets}; contents are read from {list} only"),
        );
    }
    let remedy = if servers.is_fixed {
        "clone_url"
    } else {
        "clone_hosts"
    };
    let message = format!(
        "{secrets}; contents are read from {list} only: name servers of your own in {key}.{remedy}"
    );
    if forge == Forge::Gitea || (forge == Forge::GitHub && has_own_api(config)) {
        let mend = format!("set {key}.clone_url, or clone_hosts, to your server's address");
        return Check::warning(name, message, mend);
    }
    Check::ok(name, message)
}

/// Returns whether failed deliveries are looked up at a server other than github.com's.
fn has_own_api(config: &Config) -> bool {
    let redelivery = config.webhooks.redelivery.as_ref();
    redelivery.is_some_and(|redelivery| redelivery.api_url.host_str() != Some(PUBLIC_API))
}
