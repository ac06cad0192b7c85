//! Installations of GitHub Apps, from the configuration.

use std::sync::Arc;

use reqwest::{Client, Url};

use crate::clock::SharedClock;
use crate::config::{self, SourceKind};
use crate::github::{AppAuth, AppKeyError, GitHubError, Installation};
use crate::source::PollError;

/// Returns the installation of the GitHub App that a source authenticates as, if it does.
///
/// # Errors
/// Returns an error if the app's private key cannot be used.
pub fn app_installation(
    source: &config::Source,
    client: &Client,
    clock: &SharedClock,
) -> Result<Option<Arc<Installation>>, PollError> {
    let (Some(app), SourceKind::GithubEvents { api_url, .. }) = (&source.app, &source.kind) else {
        return Ok(None);
    };
    installation(app, api_url, client, clock).map(Some)
}

/// Returns the installation of an app.
///
/// # Errors
/// Returns an error if the app's private key cannot be used.
pub(super) fn installation(
    app: &config::App,
    api_url: &Url,
    client: &Client,
    clock: &SharedClock,
) -> Result<Arc<Installation>, PollError> {
    let auth = AppAuth::new(app.id, &app.private_key).map_err(|error| {
        PollError::Api(GitHubError::App(match error {
            AppKeyError::NotPem => "private_key is no private key in PEM form",
            AppKeyError::NotRsa => "private_key is no RSA key of 2048 to 4096 bits",
            AppKeyError::Signing => "private_key cannot sign",
        }))
    })?;
    Ok(Arc::new(Installation::new(
        Arc::new(auth),
        app.installation.clone(),
        client.clone(),
        api_url.clone(),
        Arc::clone(clock),
    )))
}
