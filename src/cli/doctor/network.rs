//! Checks over the network: sources, clone addresses and partners' public keys, and from their answers the clock.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use reqwest::{Client, Url};
use serde::Deserialize;

use super::ask::{Probe, ask, compare};
use super::{Check, sources};
use crate::config::{Config, without_slash};
use crate::intake::PartnerName;

/// Queries every server that the configuration names, all concurrently.
pub(super) async fn probes(config: &Config, http: &Client) -> Vec<Check> {
    let mut all: Vec<BoxFuture<'_, Vec<Probe>>> = Vec::new();
    for source in &config.sources {
        all.push(sources::probes(config, source, http).boxed());
    }
    for url in clone_urls(config) {
        all.push(clone_url(url, http).map(|probe| vec![probe]).boxed());
    }
    for (name, _, url) in config.partners.accepting() {
        let probe = public_keys(name, url, http);
        all.push(probe.map(|probe| vec![probe]).boxed());
    }
    let mut checks = Vec::new();
    let mut clocks = Vec::new();
    for Probe { check, clock } in join_all(all).await.into_iter().flatten() {
        checks.push(check);
        clocks.extend(clock);
    }
    checks.extend(compare(&clocks));
    checks
}

/// Returns every configured clone address once.
fn clone_urls(config: &Config) -> BTreeSet<&Url> {
    let sources = config.sources.iter().map(|source| &source.clone_url);
    let webhooks = config.webhooks.each().into_iter();
    let webhooks = webhooks.filter_map(|(_, webhook)| webhook.clone_url.as_ref());
    sources.chain(webhooks).collect()
}

/// Checks that a clone address answers. Any status below 500 will do, since the address itself is no repository.
async fn clone_url(url: &Url, http: &Client) -> Probe {
    let name = format!("clone_url {}", without_slash(url));
    let mend =
        "check clone_url, and that this machine may reach it: DNS, proxy, firewall, certificates";
    let request = |url| http.get(url);
    match ask(url, false, request).await {
        Ok(answer) if answer.status < 500 => Probe::new(Check::ok(name, "reachable"), answer.clock),
        Ok(answer) => {
            let message = format!("it answers HTTP {}", answer.status);
            Probe::new(Check::failed(name, message, mend), answer.clock)
        }
        Err(why) => Probe::new(Check::failed(name, why, mend), None),
    }
}

/// Response that lists a partner's public keys.
#[derive(Deserialize)]
struct PublicKeyList {
    public_keys: Vec<serde::de::IgnoredAny>,
}

async fn public_keys(partner: PartnerName, url: &Url, http: &Client) -> Probe {
    let partner = partner.name();
    let name = format!("partner {partner}");
    let mend = format!(
        "its reports are answered 503 until then: check partners.{partner}.public_keys_url and that this machine may reach it"
    );
    let request = |url| http.get(url);
    let answer = match ask(url, true, request).await {
        Ok(answer) => answer,
        Err(why) => return Probe::new(Check::failed(name, why, mend), None),
    };
    let list = serde_json::from_slice::<PublicKeyList>(&answer.body);
    let check = match (answer.status, list) {
        (200, Ok(list)) if !list.public_keys.is_empty() => {
            let count = list.public_keys.len();
            Check::ok(name, format!("{count} public keys"))
        }
        (200, _) => Check::failed(name, "what is there is no list of public keys", mend),
        (status, _) => {
            let message = format!("{} answers HTTP {status}", without_slash(url));
            Check::failed(name, message, mend)
        }
    };
    Probe::new(check, answer.clock)
}
