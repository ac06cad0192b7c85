//! One request to the events API: its headers and its page.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LINK};
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};

use super::PollError;
use crate::fetch::{rate_limit_wait, read_chunk, retry_after, send};
use crate::store::SourceState;

/// Pages that the feed has.
pub(super) const PAGES: u32 = 3;

/// Events on a full page; the API's own maximum.
const PER_PAGE: usize = 100;

/// The longest page that is read.
const MAX_PAGE: usize = 32 << 20;

/// How long a server may send nothing.
const STALL: Duration = Duration::from_secs(30);

/// How often to poll when the server does not say.
pub(super) const INTERVAL: Duration = Duration::from_mins(1);

/// The longest interval that a server is taken at its word for.
const MAX_INTERVAL: Duration = Duration::from_hours(1);

/// The events API, or what has its shape, at one address.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    address: Url,
    token: Option<SecretString>,
}

/// The answer to a request for a page.
#[derive(Debug)]
pub(super) struct Answer {
    /// The events, as JSON; nothing when they are unchanged.
    pub(super) body: Option<Vec<u8>>,
    /// The page's `ETag`.
    pub(super) etag: Option<String>,
    /// How long to wait before the next poll.
    pub(super) interval: Duration,
    pub(super) quota: Quota,
    link: Option<String>,
}

/// GitHub's rate limit, as an answer told it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Quota {
    limit: Option<u64>,
    remaining: Option<u64>,
    resets_at: Option<Timestamp>,
}

impl Api {
    pub(super) fn new(client: Client, address: Url, token: Option<SecretString>) -> Self {
        Self {
            client,
            address,
            token,
        }
    }

    /// What is polled.
    pub(super) fn address(&self) -> &str {
        self.address.as_str()
    }

    /// Asks for a page, from 1. With the `etag` of an earlier answer, an unchanged page is not sent again.
    pub(super) async fn page(&self, number: u32, etag: Option<&str>) -> Result<Answer, PollError> {
        let mut url = self.address.clone();
        url.query_pairs_mut()
            .append_pair("per_page", &PER_PAGE.to_string())
            .append_pair("page", &number.to_string());
        let authorization = self.token.as_ref().map(bearer).transpose()?;
        let response = send(&url, STALL, |url| {
            let mut request = self.client.get(url);
            request = request.header(ACCEPT, "application/vnd.github+json");
            request = request.header("X-GitHub-Api-Version", "2022-11-28");
            if let Some(etag) = etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value.clone());
            }
            request
        })
        .await
        .map_err(PollError::Connection)?;
        answer(response).await
    }
}

impl Answer {
    /// Whether there is another page: as `Link` says, or else when this one of `count` events is full.
    pub(super) fn has_next(&self, count: usize) -> bool {
        match &self.link {
            Some(link) => link.contains("rel=\"next\""),
            None => count >= PER_PAGE,
        }
    }
}

impl Quota {
    /// How long to wait until another poll may use all its pages. A period lasts an hour at most, whatever
    /// the difference between the server's clock and ours.
    pub(super) fn wait(&self, now: Timestamp) -> Option<Duration> {
        if self.remaining? >= u64::from(PAGES) {
            return None;
        }
        let wait: Duration = self.resets_at?.duration_since(now).try_into().ok()?;
        Some(wait.min(MAX_INTERVAL))
    }

    /// Notes it in the source's state.
    pub(super) fn note(&self, state: &mut SourceState) {
        state.rate_limit = self.limit;
        state.rate_remaining = self.remaining;
        state.rate_resets_at = self.resets_at;
    }
}

async fn answer(mut response: Response) -> Result<Answer, PollError> {
    check_status(&response)?;
    let headers = response.headers();
    let mut answer = Answer {
        body: None,
        etag: text(headers, ETAG.as_str()),
        interval: poll_interval(headers),
        quota: quota(headers),
        link: text(headers, LINK.as_str()),
    };
    if response.status() != StatusCode::NOT_MODIFIED {
        answer.body = Some(read_body(&mut response).await?);
    }
    Ok(answer)
}

fn check_status(response: &Response) -> Result<(), PollError> {
    let headers = response.headers();
    let status = response.status().as_u16();
    let told = retry_after(headers).or_else(|| rate_limit_wait(headers));
    match status {
        200 | 304 => Ok(()),
        429 => Err(PollError::RateLimited {
            status,
            retry_after: told,
        }),
        403 if told.is_some() => Err(PollError::RateLimited {
            status,
            retry_after: told,
        }),
        400..500 => Err(PollError::Refused { status }),
        _ => Err(PollError::Server { status }),
    }
}

async fn read_body(response: &mut Response) -> Result<Vec<u8>, PollError> {
    let mut body = Vec::new();
    while let Some(chunk) = read_chunk(response, STALL)
        .await
        .map_err(PollError::Connection)?
    {
        if body.len() + chunk.len() > MAX_PAGE {
            return Err(PollError::NotAList("it is longer than 32 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn quota(headers: &HeaderMap) -> Quota {
    let number = |name| text(headers, name)?.trim().parse::<i64>().ok();
    let count = |name| u64::try_from(number(name)?).ok();
    Quota {
        limit: count("x-ratelimit-limit"),
        remaining: count("x-ratelimit-remaining"),
        resets_at: number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok()),
    }
}

fn poll_interval(headers: &HeaderMap) -> Duration {
    let seconds = text(headers, "x-poll-interval").and_then(|text| text.trim().parse().ok());
    seconds.map_or(INTERVAL, |seconds| {
        Duration::from_secs(seconds).clamp(Duration::from_secs(1), MAX_INTERVAL)
    })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn bearer(token: &SecretString) -> Result<HeaderValue, PollError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
        .map_err(|_| PollError::Address("its token cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
