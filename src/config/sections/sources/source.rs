//! A source of events as it is configured.

use reqwest::Url;
use secrecy::SecretString;

use crate::github::InstallationId;
use crate::schedule::Schedule;
use crate::source::Scope;

/// An element of `[[sources]]`.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name of the source in the log and in incidents. Unique.
    pub name: String,
    /// Kind of feed, with the settings that only this kind has.
    pub kind: SourceKind,
    /// Base URL of repositories over smart HTTP. Contents are fetched from `{clone_url}/{owner}/{repo}.git`.
    pub clone_url: Url,
    /// Access token for the API and for clones.
    pub token: Option<SecretString>,
    /// User in whose name the token is presented to git. If `None`, it is what the forge wants.
    pub user: Option<String>,
    /// Further access tokens for the API, each with a rate limit of its own.
    pub tokens: Vec<SecretString>,
    /// GitHub App on whose behalf the source is polled.
    pub app: Option<App>,
    /// Times at which the source is polled.
    pub schedule: Schedule,
}

/// The `[sources.app]` section, or `[webhooks.github.redelivery.app]`.
#[derive(Debug, Clone)]
pub struct App {
    /// Identifier of the app.
    pub id: u64,
    /// Private key of the app, in PEM format.
    pub private_key: SecretString,
    /// Identifier of the installation: the configured one, or the one for the source's scope, or for the webhooks.
    pub installation: InstallationId,
}

/// Kind of feed of a source, with the keys that only this kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// GitHub's events API.
    GithubEvents {
        /// Part of the feed that is read.
        scope: Scope,
        /// Base URL of the REST API.
        api_url: Url,
    },
    /// An archive of events, one file per hour.
    Gharchive {
        /// Base URL of the archive's files.
        base_url: Url,
    },
    /// One repository, fetched on a schedule.
    Git {
        /// URL from which the repository is cloned.
        url: Url,
    },
}

impl SourceKind {
    /// Returns the name of the kind in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::GithubEvents { .. } => "github_events",
            Self::Gharchive { .. } => "gharchive",
            Self::Git { .. } => "git",
        }
    }

    /// Returns the URL of the server, folder or repository that is polled.
    pub fn url(&self) -> &Url {
        match self {
            Self::GithubEvents { api_url, .. } => api_url,
            Self::Gharchive { base_url } => base_url,
            Self::Git { url } => url,
        }
    }
}
