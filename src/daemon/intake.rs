//! Setup of the configured partners and webhooks.

use std::collections::HashMap;
use std::sync::Arc;

use reqwest::Url;

use super::Work;
use super::app::installation;
use super::changes::Fingerprint;
use super::parts::Parts;
use super::poller::poll;
use super::tokens::token_of_webhook;
use crate::config::{self, Config, SourceKind};
use crate::fetch::host_of;
use crate::forge::Forge;
use crate::github::Credential;
use crate::intake::webhook::{ClonePlaces, InboxParts, InboxTask, Webhook, WebhookOptions};
use crate::intake::{Partner, PartnerOptions, PublicKeyTimings, PublicKeys, RevocationApi};
use crate::schedule::Schedule;
use crate::server::Intake;
use crate::source::ConfiguredSource;
use crate::source::{PollError, Redelivery, RedeliveryOptions, Source, SourceParts, Unusable};
use crate::work::Origin;

/// Kind of the search for failed deliveries.
const REDELIVERY: &str = "github_redelivery";

/// Creates the configured partners and webhooks, and adds to `origins` the servers that contents of webhooks come from.
/// The webhooks only work while the returned task runs.
pub(super) fn make(
    parts: &Parts<'_>,
    work: &Work,
    origins: &mut HashMap<String, Origin>,
) -> (Intake, InboxTask) {
    let bases = clone_bases(parts.config, origins);
    let known: Vec<Url> = origins
        .values()
        .map(|origin| origin.clone_url.clone())
        .collect();
    add_servers(parts.config, origins);
    let inbox = InboxParts::new(parts.responder.clone(), Arc::clone(&work.wake));
    let webhooks = parts.config.webhooks.accepting().map(|(forge, webhook)| {
        let options = WebhookOptions {
            forge,
            secrets: webhook.secrets.clone(),
            places: ClonePlaces {
                base: bases.get(&forge).cloned(),
                known: known.clone(),
                hosts: webhook.clone_hosts.clone(),
            },
        };
        tracing::info!(webhook = forge.source(), "receiving");
        let engine = Arc::clone(&work.engine);
        Arc::new(Webhook::new(
            options,
            parts.responder.clone(),
            engine,
            &inbox,
        ))
    });
    let tokens = parts.config.partners.revocation_tokens.clone();
    let revocation =
        (!tokens.is_empty()).then(|| RevocationApi::new(tokens, parts.responder.clone()));
    let intake = Intake {
        partners: partners(parts),
        revocation,
        webhooks: webhooks.collect(),
    };
    (intake, inbox.task)
}

/// Creates the source that searches for failed deliveries, and its schedule, if it is configured.
pub(super) fn redelivery(parts: &Parts<'_>, work: &Work) -> Option<(Arc<dyn Source>, Schedule)> {
    let redelivery = parts.config.webhooks.redelivery.as_ref()?;
    let source_parts = work.source_parts(parts, &redelivery.schedule);
    let made = search(parts, redelivery, source_parts.clone());
    let source: Arc<dyn Source> = match made {
        Ok(source) => Arc::new(source),
        Err(error) => Arc::new(Unusable::new(
            redelivery_name(),
            REDELIVERY,
            &error,
            source_parts,
        )),
    };
    Some((source, redelivery.schedule.clone()))
}

fn search(
    parts: &Parts<'_>,
    redelivery: &config::Redelivery,
    source_parts: SourceParts,
) -> Result<Redelivery, PollError> {
    let app = redelivery.app.as_ref().map(|app| {
        let (http, clock) = (&parts.clients.api, &parts.clock);
        installation(app, &redelivery.api_url, http, clock)
    });
    let app = app.transpose()?.map(Credential::App);
    let token = redelivery.token.clone().map(Credential::Token);
    let options = RedeliveryOptions {
        name: redelivery_name(),
        hooks: redelivery.hooks.clone(),
        api_url: redelivery.api_url.clone(),
        credentials: app.into_iter().chain(token).collect(),
    };
    Redelivery::new(options, source_parts)
}

/// Starts the search for failed deliveries.
pub(super) fn start_redelivery(
    parts: &Parts<'_>,
    (source, schedule): (Arc<dyn Source>, Schedule),
    digests: &Fingerprint,
) {
    tracing::info!(source = source.name(), %schedule, "looking for failed deliveries");
    let term = parts.term(source.name(), digests.of_redelivery());
    let polling = poll(source, schedule, Arc::clone(&parts.clock), term);
    parts.spawn("redelivery", polling);
}

/// Returns the webhooks that accept deliveries, and the search for failed ones.
pub(super) fn configured_sources(config: &Config) -> Vec<ConfiguredSource> {
    let webhooks = config.webhooks.accepting();
    let mut sources: Vec<_> = webhooks
        .map(|(forge, _)| ConfiguredSource {
            name: forge.source().to_owned(),
            kind: "webhook".to_owned(),
            schedule: None,
        })
        .collect();
    if let Some(redelivery) = &config.webhooks.redelivery {
        sources.push(ConfiguredSource {
            name: redelivery_name(),
            kind: REDELIVERY.to_owned(),
            schedule: Some(redelivery.schedule.clone()),
        });
    }
    sources
}

fn redelivery_name() -> String {
    format!("{}:redelivery", Forge::GitHub.source())
}

/// Adds to `origins` the servers that contents of webhooks come from.
pub(super) fn add_origins(config: &Config, origins: &mut HashMap<String, Origin>) {
    clone_bases(config, origins);
    add_servers(config, origins);
}

/// Adds the servers that payloads may name. The operator who configures a server has named its host, so that it gets
/// places of its own like all others.
fn add_servers(config: &Config, origins: &mut HashMap<String, Origin>) {
    for (forge, webhook) in config.webhooks.accepting() {
        let hosts = webhook.clone_hosts.iter().cloned();
        for clone_url in hosts.chain(forge.public_urls()) {
            let host = host_of(&clone_url);
            origins.entry(host.clone()).or_insert_with(|| Origin {
                host,
                clone_url,
                token: None,
                without_token: None,
                app: None,
            });
        }
    }
}

/// Servers that contents of a forge's payloads are read from.
#[derive(Debug)]
pub struct ContentServers {
    /// Scheme, host and port of each server, sorted.
    pub servers: Vec<String>,
    /// `true` if the server is fixed by the configuration, whatever payloads and `clone_hosts` say.
    pub is_fixed: bool,
}

/// Returns the servers that contents of this forge's payloads are read from with this configuration.
pub fn content_servers(config: &Config, forge: Forge) -> ContentServers {
    let urls = config.sources.iter().map(|source| source.clone_url.clone());
    let mut origins: HashMap<String, Origin> = urls
        .map(|clone_url| {
            let host = host_of(&clone_url);
            let origin = Origin {
                host: host.clone(),
                clone_url,
                token: None,
                without_token: None,
                app: None,
            };
            (host, origin)
        })
        .collect();
    let bases = clone_bases(config, &mut origins);
    let mut allowed: Vec<Url> = match bases.get(&forge) {
        Some(base) => vec![base.clone()],
        None => origins
            .into_values()
            .map(|origin| origin.clone_url)
            .collect(),
    };
    let is_fixed = bases.contains_key(&forge);
    if !is_fixed {
        allowed.extend(config.webhooks.of(forge).clone_hosts.iter().cloned());
        allowed.extend(forge.public_urls());
    }
    let servers = allowed.iter().map(|url| url.origin().ascii_serialization());
    let mut servers: Vec<String> = servers.collect();
    servers.sort();
    servers.dedup();
    ContentServers { servers, is_fixed }
}

/// Returns the configured base URLs that the repositories of each forge's payloads are cloned from. GitHub's defaults
/// to that of the events feed, so that a push is a single work item no matter which of the two reports it.
fn clone_bases(config: &Config, origins: &mut HashMap<String, Origin>) -> HashMap<Forge, Url> {
    let mut bases = HashMap::new();
    for (forge, webhook) in config.webhooks.each() {
        let Some(clone_url) = &webhook.clone_url else {
            continue;
        };
        let host = host_of(clone_url);
        // The configuration has one clone URL and one token for each host.
        let origin = origins.entry(host.clone()).or_insert_with(|| Origin {
            host,
            clone_url: clone_url.clone(),
            token: None,
            without_token: None,
            app: None,
        });
        origin.token = origin
            .token
            .take()
            .or_else(|| token_of_webhook(config, forge));
        bases.insert(forge, clone_url.clone());
    }
    let mut sources = config.sources.iter();
    let feed = sources.find(|source| matches!(source.kind, SourceKind::GithubEvents { .. }));
    if let Some(feed) = feed {
        let entry = bases.entry(Forge::GitHub);
        entry.or_insert_with(|| feed.clone_url.clone());
    }
    bases
}

fn partners(parts: &Parts<'_>) -> Vec<Partner> {
    let accepting = parts.config.partners.accepting();
    let partners = accepting.map(|(name, partner, url)| {
        let keys = parts.shared.public_keys(name, url, || {
            PublicKeys::new(
                url.clone(),
                parts.clients.api.clone(),
                Arc::clone(&parts.clock),
                PublicKeyTimings::default(),
            )
        });
        let options = PartnerOptions {
            name,
            key_identifier_header: partner.key_identifier_header.clone(),
            signature_header: partner.signature_header.clone(),
        };
        Partner::new(options, keys, parts.responder.clone())
    });
    partners.collect()
}
