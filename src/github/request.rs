//! Sending of a request with what every request to the API has.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, Response, Url};
use secrecy::{ExposeSecret, SecretString};

use super::error::GitHubError;
use crate::fetch::send;

/// Maximum time without any data from the server.
const STALL: Duration = Duration::from_secs(30);

/// Version of the API whose answers are understood. Source:
/// <https://docs.github.com/en/rest/about-the-rest-api/api-versions>.
const VERSION: &str = "2022-11-28";

/// A request to GitHub's REST API.
pub(super) struct Request<'r> {
    pub(super) method: Method,
    pub(super) url: &'r Url,
    pub(super) token: Option<&'r SecretString>,
    /// `ETag` of the page that is known; an unchanged one is not sent again.
    pub(super) etag: Option<&'r str>,
}

impl Request<'_> {
    /// Sends the request, and follows redirects on the same server.
    ///
    /// # Errors
    /// Returns [`GitHubError::Connection`] if there is no response, and [`GitHubError::Address`] if the token cannot
    /// be sent in a header.
    pub(super) async fn send(self, client: &Client) -> Result<Response, GitHubError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/vnd.github+json"),
        );
        headers.insert("x-github-api-version", HeaderValue::from_static(VERSION));
        if let Some(token) = self.token {
            headers.insert(AUTHORIZATION, bearer(token)?);
        }
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let request = |url| {
            let request = client.request(self.method.clone(), url);
            request.headers(headers.clone())
        };
        send(self.url, STALL, request)
            .await
            .map_err(GitHubError::Connection)
    }
}

/// Returns the value of an `Authorization` header for a token.
///
/// # Errors
/// Returns [`GitHubError::Address`] if the token cannot be sent in a header.
fn bearer(token: &SecretString) -> Result<HeaderValue, GitHubError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
        .map_err(|_| GitHubError::Address("its token cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
