//! Requests to GitHub's REST API, sent with the token that fits best.

use std::time::Duration;

use reqwest::header::{ETAG, HeaderMap, LINK};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::answer::{Quota, read_body, refusal, text};
use super::error::GitHubError;
use super::request::Request;
use super::tokens::{Credential, Tokens};
use crate::clock::SharedClock;
use crate::fetch::{Body, has_contents};
use crate::memory;

/// Number of entries on a full page: the maximum of the API.
pub(crate) const PER_PAGE: usize = 100;

/// Maximum length of an `ETag` that is kept, in bytes: there is one for each page and token. GitHub's have 67.
const MAX_TAG: usize = 1 << 10;

/// Maximum size of a page, in bytes.
const MAX_PAGE: usize = memory::LARGE_PAGE;

/// Maximum length of the cursor of a page that is kept, in bytes.
const MAX_CURSOR: usize = 256;

/// Polling interval if the server does not specify one.
pub(crate) const INTERVAL: Duration = Duration::from_mins(1);

/// Maximum polling interval that is accepted from a server.
const MAX_INTERVAL: Duration = Duration::from_hours(1);

/// GitHub's REST API, or a compatible one, at one URL.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    base: Url,
    clock: SharedClock,
    pub(crate) tokens: Tokens,
}

/// Response to a request for a page.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The page, or `None` if it is unchanged.
    pub(crate) body: Option<Body>,
    /// `ETag` of the page.
    pub(crate) etag: Option<String>,
    /// Minimum delay before the next poll, if the server specifies one.
    pub(crate) interval: Option<Duration>,
    /// Index of the token that was used for the request.
    pub(crate) token: usize,
    link: Option<String>,
}

impl Api {
    /// Creates a client of the API at `base`.
    ///
    /// # Errors
    /// Returns [`GitHubError::Address`] if `base` cannot be a base.
    pub(crate) fn new(
        client: Client,
        base: Url,
        clock: SharedClock,
        tokens: Tokens,
    ) -> Result<Self, GitHubError> {
        if base.cannot_be_a_base() {
            return Err(GitHubError::Address("it cannot carry a path"));
        }
        Ok(Self {
            client,
            base,
            clock,
            tokens,
        })
    }

    /// Returns the URL of the API.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str()
    }

    /// Returns the URL of a path below the base, such as `orgs`, `acme`, `events`.
    pub(crate) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Requests a page, using the token `preferred` if there is one, and the best one otherwise. Given the `ETag` of
    /// an earlier response to the same token, an unchanged page is not sent again. If a token is refused or throttled,
    /// the next one is tried.
    pub(crate) async fn get(
        &self,
        url: &Url,
        preferred: Option<usize>,
        etag: impl Fn(usize) -> Option<String>,
    ) -> Result<Answer, GitHubError> {
        self.request(&Method::GET, url, preferred, etag).await
    }

    /// Requests an action, using the best token. If a token is refused or throttled, the next one is tried.
    pub(crate) async fn post(&self, url: &Url) -> Result<(), GitHubError> {
        let answered = self.request(&Method::POST, url, None, |_| None).await;
        answered.map(drop)
    }

    async fn request(
        &self,
        method: &Method,
        url: &Url,
        preferred: Option<usize>,
        etag: impl Fn(usize) -> Option<String>,
    ) -> Result<Answer, GitHubError> {
        let now = self.clock.now();
        let mut token = match preferred {
            Some(token) => token,
            None => self.tokens.pick(now)?,
        };
        let mut tries = 1;
        loop {
            let error = match self.ask(method, url, token, etag(token)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let now = self.clock.now();
            match &error {
                GitHubError::Refused { status: 401 } if self.tokens.credential(token).is_some() => {
                    tracing::warn!(
                        token = token + 1,
                        "an access token is refused and set aside"
                    );
                    self.tokens.refused(token, now);
                }
                GitHubError::RateLimited { retry_after, .. } => {
                    self.tokens.limited(token, *retry_after, now);
                }
                _ => return Err(error),
            }
            if tries >= self.tokens.len() || !self.tokens.has_other(now) {
                return Err(error);
            }
            token = self.tokens.pick(now)?;
            tries += 1;
        }
    }

    /// Sends one request. If an app's token was revoked, replaces it once.
    async fn ask(
        &self,
        method: &Method,
        url: &Url,
        token: usize,
        etag: Option<String>,
    ) -> Result<Answer, GitHubError> {
        let answered = self.ask_once(method, url, token, etag.as_deref()).await;
        let Err(GitHubError::Refused { status: 401 }) = answered else {
            return answered;
        };
        let Some(Credential::App(installation)) = self.tokens.credential(token) else {
            return answered;
        };
        installation.forget().await;
        self.ask_once(method, url, token, etag.as_deref()).await
    }

    async fn ask_once(
        &self,
        method: &Method,
        url: &Url,
        token: usize,
        etag: Option<&str>,
    ) -> Result<Answer, GitHubError> {
        let value = match self.tokens.credential(token) {
            None => None,
            Some(Credential::Token(value)) => Some(value.clone()),
            Some(Credential::App(installation)) => Some(installation.token().await?),
        };
        let request = Request {
            method: method.clone(),
            url,
            token: value.as_ref(),
            etag,
        };
        let mut response = request.send(&self.client).await?;
        let status = response.status();
        let is_answered = match *method {
            Method::GET => has_contents(status.as_u16()) || status == StatusCode::NOT_MODIFIED,
            _ => status.is_success(),
        };
        if !is_answered {
            if status.is_server_error() {
                self.tokens.failed(token, Quota::of(response.headers()));
            }
            return Err(refusal(&mut response, self.clock.now()).await);
        }
        self.read(&mut response, token).await
    }

    async fn read(&self, response: &mut Response, token: usize) -> Result<Answer, GitHubError> {
        let headers = response.headers();
        self.tokens.answered(token, Quota::of(headers));
        let mut answer = Answer {
            body: None,
            etag: text(headers, ETAG.as_str()).filter(|tag| tag.len() <= MAX_TAG),
            interval: poll_interval(headers),
            token,
            link: text(headers, LINK.as_str()),
        };
        if has_contents(response.status().as_u16()) {
            answer.body = Some(read_body(response, MAX_PAGE).await?);
        }
        Ok(answer)
    }
}

impl Answer {
    /// Returns whether there is another page: according to `Link`, or without that header, if this page of `count`
    /// entries, of at most `full`, is full.
    pub(crate) fn has_next(&self, count: usize, full: usize) -> bool {
        match &self.link {
            Some(link) => link.contains("rel=\"next\""),
            None => count >= full,
        }
    }

    /// Returns the URL of the next page, if it is on the same server as `from`.
    pub(crate) fn next(&self, from: &Url) -> Option<Url> {
        let next = from.join(next_link(self.link.as_deref()?)?).ok();
        next.filter(|url| url.origin() == from.origin())
    }

    /// Returns the cursor of the next page, for a list that is paged by cursors. Only the cursor is used, never the
    /// URL around it, which may be of another server.
    pub(crate) fn next_cursor(&self) -> Option<String> {
        let url = Url::parse(next_link(self.link.as_deref()?)?).ok()?;
        let (_, cursor) = url.query_pairs().find(|(name, _)| name == "cursor")?;
        (cursor.len() <= MAX_CURSOR).then(|| cursor.into_owned())
    }
}

/// Returns the target with the relation `next` in a `Link` header (RFC 8288).
fn next_link(link: &str) -> Option<&str> {
    let mut links = link.split(',');
    let next = links.find(|link| link.contains("rel=\"next\""))?;
    let (_, target) = next.split_once('<')?;
    let (target, _) = target.split_once('>')?;
    Some(target)
}

fn poll_interval(headers: &HeaderMap) -> Option<Duration> {
    let seconds = text(headers, "x-poll-interval")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(Duration::from_secs(1), MAX_INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(link: &str) -> Answer {
        Answer {
            body: None,
            etag: None,
            interval: None,
            token: 0,
            link: Some(link.to_owned()),
        }
    }

    #[test]
    fn pages_follow_each_other_by_their_cursor_only() {
        let link = "<https://elsewhere.example/x?per_page=100&cursor=v1_127>; rel=\"next\", <https://x>; rel=\"first\"";
        assert_eq!(answer(link).next_cursor().as_deref(), Some("v1_127"));
        let from = Url::parse("https://api.example/x").unwrap();
        assert_eq!(answer(link).next(&from), None);
        let long = format!(
            "<https://x?cursor={}>; rel=\"next\"",
            "1".repeat(MAX_CURSOR + 1)
        );
        for none in [
            "",
            "<https://x?cursor=1>; rel=\"prev\"",
            "<https://x>; rel=\"next\"",
            "rel=\"next\"",
            &long,
        ] {
            assert_eq!(answer(none).next_cursor(), None, "{none}");
        }
    }
}
