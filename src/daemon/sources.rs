//! The configured sources.

use std::collections::HashMap;
use std::sync::Arc;

use reqwest::Url;

use super::poller::poll;
use super::{DaemonError, Parts, Work};
use crate::config::{self, Schedule, SourceKind};
use crate::source::{
    Credential, GitHubEvents, GitHubOptions, Origin, PollError, Scope, Source, SourceParts,
};

/// Sources that are ready to be polled, and where the contents of what they find come from.
pub(super) struct Sources {
    sources: Vec<(Arc<dyn Source>, Schedule)>,
    /// By host.
    pub(super) origins: HashMap<String, Origin>,
}

/// Makes what the configuration names.
pub(super) fn make(parts: &Parts<'_>, work: &Work) -> Result<Sources, DaemonError> {
    let source_parts = SourceParts {
        client: parts.http.clone(),
        store: parts.responder.store().clone(),
        responder: parts.responder.clone(),
        engine: Arc::clone(&work.engine),
        clock: Arc::clone(&parts.clock),
        wake: Arc::clone(&work.wake),
    };
    let mut sources: Vec<(Arc<dyn Source>, Schedule)> = Vec::new();
    let mut origins: HashMap<String, Origin> = HashMap::new();
    for source in &parts.config.sources {
        let failed = |error| DaemonError::Source {
            name: source.name.clone(),
            error,
        };
        let origin = origin(source).map_err(failed)?;
        let SourceKind::GithubEvents = source.kind;
        let options = github(source, &origin).map_err(failed)?;
        let made = GitHubEvents::new(options, source_parts.clone()).map_err(failed)?;
        sources.push((Arc::new(made), source.schedule.clone()));
        // The configuration was checked: sources of one host agree, but some may have no token.
        let known = origins.entry(origin.host.clone()).or_insert(origin.clone());
        known.token = known.token.take().or(origin.token);
    }
    Ok(Sources { sources, origins })
}

impl Sources {
    /// Starts polling.
    pub(super) fn start(self, parts: &Parts<'_>) {
        for (source, schedule) in self.sources {
            tracing::info!(source = source.name(), %schedule, "polling");
            let clock = Arc::clone(&parts.clock);
            let stop = parts.lifecycle.stop_token();
            parts
                .lifecycle
                .spawn("poller", poll(source, schedule, clock, stop));
        }
    }
}

fn github(source: &config::Source, origin: &Origin) -> Result<GitHubOptions, PollError> {
    let scope = match &source.scope {
        config::Scope::Public => Scope::Public,
        config::Scope::Org(name) => Scope::Organization(name.clone()),
        config::Scope::User(name) => Scope::User(name.clone()),
        config::Scope::Repo { owner, name } => Scope::Repository {
            owner: owner.clone(),
            name: name.clone(),
        },
    };
    Ok(GitHubOptions {
        name: source.name.clone(),
        scope,
        api_url: url(&source.api_url)?,
        host: origin.host.clone(),
        credentials: source
            .token
            .clone()
            .map(Credential::Token)
            .into_iter()
            .collect(),
    })
}

fn origin(source: &config::Source) -> Result<Origin, PollError> {
    let clone_url = url(&source.clone_url)?;
    Ok(Origin {
        host: Origin::host_of(&clone_url),
        clone_url,
        token: source.token.clone(),
    })
}

fn url(text: &str) -> Result<Url, PollError> {
    Url::parse(text).map_err(|_| PollError::Address("it is not a URL"))
}
