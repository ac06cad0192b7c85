//! Setup of the configured sources.

use std::collections::HashMap;
use std::sync::Arc;

use reqwest::Url;

use super::Work;
use super::app::app_installation;
use super::changes::Fingerprint;
use super::parts::Parts;
use super::poller::poll;
use super::tokens::token_of_source;
use crate::config::{self, Config, SourceKind};
use crate::fetch::{GitFetcher, host_of};
use crate::github::Credential;
use crate::schedule::Schedule;
use crate::source::ConfiguredSource;
use crate::source::{
    GhArchive, GhArchiveOptions, GitHubEvents, GitHubOptions, GitRemote, GitRemoteOptions,
    PollError, Scope, Source, SourceParts, Unusable,
};
use crate::work::Origin;

/// Sources that are ready to be polled, and the servers that the contents they find come from.
pub(super) struct Sources {
    sources: Vec<(Arc<dyn Source>, Schedule)>,
    /// Servers by host.
    pub(super) origins: HashMap<String, Origin>,
}

/// Creates the configured sources. One that cannot be polled does not keep the others from it: its state tells why.
pub(super) fn make(parts: &Parts<'_>, work: &Work) -> Sources {
    let fetcher = &work.fetcher;
    let mut sources: Vec<(Arc<dyn Source>, Schedule)> = Vec::new();
    let mut origins: HashMap<String, Origin> = HashMap::new();
    for source in &parts.config.sources {
        let source_parts = work.source_parts(parts, &source.schedule);
        let (origin, failed) = origin(parts.config, source, &source_parts);
        let made = match failed {
            None => source_of(source, &origin, source_parts.clone(), fetcher),
            Some(error) => Err(error),
        };
        let made = made.unwrap_or_else(|error| {
            let (name, kind) = (source.name.clone(), source.kind.name());
            Arc::new(Unusable::new(name, kind, &error, source_parts))
        });
        sources.push((made, source.schedule.clone()));
        // Sources of one host have the same clone URL, but some may have no token.
        let known = origins.entry(origin.host.clone()).or_insert(origin.clone());
        known.token = known.token.take().or(origin.token);
        known.app = known.app.take().or(origin.app);
        known.without_token = known.without_token.take().or(origin.without_token);
    }
    Sources { sources, origins }
}

/// Returns the configured sources and webhooks, for reporting their status.
pub fn configured_sources(config: &Config) -> Vec<ConfiguredSource> {
    let polled = config.sources.iter().map(|source| ConfiguredSource {
        name: source.name.clone(),
        kind: source.kind.name().to_owned(),
        schedule: Some(source.schedule.clone()),
    });
    polled
        .chain(super::intake::configured_sources(config))
        .collect()
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.sources.iter().map(|(source, _)| source.name());
        f.debug_list().entries(names).finish()
    }
}

impl Sources {
    /// Returns the source of this name.
    pub(super) fn find(&self, name: &str) -> Option<&dyn Source> {
        let mut sources = self.sources.iter();
        let (source, _) = sources.find(|(source, _)| source.name() == name)?;
        Some(source.as_ref())
    }

    /// Adds another source.
    pub(super) fn add(&mut self, source: Arc<dyn Source>, schedule: Schedule) {
        self.sources.push((source, schedule));
    }

    /// Returns the names of the sources.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|(source, _)| source.name())
    }

    /// Starts polling.
    pub(super) fn start(self, parts: &Parts<'_>, digests: &Fingerprint) {
        for (source, schedule) in self.sources {
            tracing::info!(source = source.name(), %schedule, "polling");
            let name = source.name();
            let term = parts.term(name, digests.of_source(name));
            let polling = poll(source, schedule, Arc::clone(&parts.clock), term);
            parts.spawn("poller", polling);
        }
    }
}

fn source_of(
    source: &config::Source,
    origin: &Origin,
    parts: SourceParts,
    fetcher: &GitFetcher,
) -> Result<Arc<dyn Source>, PollError> {
    Ok(match &source.kind {
        SourceKind::Git { url } => {
            let options = GitRemoteOptions {
                name: source.name.clone(),
                url: url.clone(),
                token: origin.token.clone(),
            };
            Arc::new(GitRemote::new(options, parts, fetcher.clone())?)
        }
        SourceKind::GithubEvents { scope, api_url } => {
            Arc::new(github(source, scope, api_url, origin, parts)?)
        }
        SourceKind::Gharchive { base_url } => Arc::new(archive(source, base_url, origin, parts)?),
    })
}

fn github(
    source: &config::Source,
    scope: &Scope,
    api_url: &Url,
    origin: &Origin,
    parts: SourceParts,
) -> Result<GitHubEvents, PollError> {
    let options = GitHubOptions {
        name: source.name.clone(),
        scope: scope.clone(),
        api_url: api_url.clone(),
        host: origin.host.clone(),
        credentials: credentials(source, origin),
    };
    GitHubEvents::new(options, parts)
}

/// Returns the credentials for the API: the installation of an app, and every token.
fn credentials(source: &config::Source, origin: &Origin) -> Vec<Credential> {
    let app = origin.app.iter().cloned().map(Credential::App);
    let tokens = source.token.iter().chain(&source.tokens).cloned();
    app.chain(tokens.map(Credential::Token)).collect()
}

fn archive(
    source: &config::Source,
    base_url: &Url,
    origin: &Origin,
    parts: SourceParts,
) -> Result<GhArchive, PollError> {
    let mut options = GhArchiveOptions::new(source.name.clone(), base_url.clone());
    options.host.clone_from(&origin.host);
    GhArchive::new(options, parts)
}

/// Returns the server of a source's contents, and the reason for which its app cannot be used, if so.
fn origin(
    config: &Config,
    source: &config::Source,
    parts: &SourceParts,
) -> (Origin, Option<PollError>) {
    let (app, failed) = match app_installation(source, &parts.client, &parts.clock) {
        Ok(app) => (app, None),
        Err(error) => (None, Some(error)),
    };
    let origin = Origin {
        host: host_of(&source.clone_url),
        clone_url: source.clone_url.clone(),
        token: token_of_source(config, source),
        without_token: failed.as_ref().map(PollError::to_string),
        app,
    };
    (origin, failed)
}
