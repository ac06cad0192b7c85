//! Public keys of one origin that signs reports, fetched when needed and cached.
//!
//! Rules (contract: the intake endpoints): an identifier that is not known leads to one fetch that all
//! waiting requests share, then none for a while; a list that cannot be refreshed stays in use; keys
//! that are no longer current still verify. Fetches that bring nothing new are made ever more rarely: whoever names keys
//! that do not exist would use up the requests that the origin allows, which sources may share.
//!
//! Beside that, a list that was fetched once is refreshed every hour, so that keys which are published some time before
//! they sign anything are known then, whatever strangers did to the cool-down, and however the origin fares.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::signature::ReportKey;
use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::fetch::{self, read_chunk, send};

/// Maximum size of a list of keys, in bytes. GitHub's is about 1 KiB.
const MAX_LIST: usize = 1 << 20;

/// The longest name of a list that is kept.
const MAX_ETAG: usize = 256;

/// Intervals and timeouts for fetching public keys.
#[derive(Debug, Clone, Copy)]
pub struct PublicKeyTimings {
    /// Age from which a list is fetched again when it is next needed.
    pub ttl: Duration,
    /// Time after a successful fetch during which unknown identifiers do not cause another one. It doubles with each
    /// fetch that brings nothing new.
    pub cool_down: Duration,
    /// The longest cool-down.
    pub longest_cool_down: Duration,
    /// Time after a failed fetch during which no other one is tried.
    pub retry_after_failure: Duration,
    /// Timeout of one fetch. A sender of reports waits 10 seconds in total.
    pub timeout: Duration,
}

impl Default for PublicKeyTimings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_hours(1),
            cool_down: Duration::from_mins(1),
            longest_cool_down: Duration::from_mins(15),
            retry_after_failure: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Error returned when there is no key to verify with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The origin's list, fetched a moment ago, does not contain the key.
    #[error("the origin publishes no key with this identifier")]
    Unknown,
    /// The origin cannot be reached or is not asked at present, so it is not known whether there is such a key.
    #[error("the origin's public keys cannot be fetched at present")]
    Unavailable {
        /// Time to wait before trying again.
        retry_after: Duration,
    },
}

/// Cache of the key list of one origin. Share a single value: the cache and the deduplication of
/// concurrent fetches are per value.
#[derive(Debug)]
pub struct PublicKeys {
    url: Url,
    client: reqwest::Client,
    clock: SharedClock,
    timings: PublicKeyTimings,
    known: RwLock<Arc<FetchedKeys>>,
    flight: tokio::sync::Mutex<()>,
    /// Number of fetches that were begun, those of [`refresh`](Self::refresh) among them.
    begun: AtomicU64,
}

/// Result of the fetches so far.
#[derive(Debug, Default, Clone)]
struct FetchedKeys {
    /// Number of fetches, including failed ones. A request that waited notices from it that another one
    /// fetched.
    fetches: u64,
    keys: HashMap<String, ReportKey>,
    fetched_at: Option<Timestamp>,
    /// Entity tag of the list. The time of the last check for a newer one is in `refreshed_at`.
    etag: Option<HeaderValue>,
    refreshed_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    last_failed: bool,
    /// Number of fetches in a row that unknown identifiers caused and that brought nothing new.
    fruitless: u32,
    /// Number of the fetch that the list came with, or was found unchanged with.
    listed_by: u64,
}

/// Result of a successful fetch.
#[derive(Debug)]
enum Reply {
    /// The list has not changed.
    Same,
    List {
        keys: HashMap<String, ReportKey>,
        etag: Option<HeaderValue>,
    },
}

/// Error of a fetch, for the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer: {0}")]
    Http(#[from] fetch::FetchError),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the list is larger than {MAX_LIST} bytes")]
    TooLarge,
    #[error("the list is not of the form {{\"public_keys\": [{{\"key_identifier\", \"key\"}}]}}")]
    Shape,
    #[error("the list has no usable P-256 key")]
    Empty,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

#[derive(Deserialize)]
struct KeyList {
    public_keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct ListedKey {
    key_identifier: String,
    key: String,
}

impl PublicKeys {
    /// Creates a cache of the keys published at `url`. Nothing is fetched before the first report
    /// arrives.
    pub fn new(
        url: Url,
        client: reqwest::Client,
        clock: SharedClock,
        timings: PublicKeyTimings,
    ) -> Self {
        Self {
            url,
            client,
            clock,
            timings,
            known: RwLock::default(),
            flight: tokio::sync::Mutex::new(()),
            begun: AtomicU64::new(0),
        }
    }

    /// Returns the key with the given identifier, fetching the list if that is due.
    ///
    /// # Errors
    /// Returns [`NoKey`] if there is no such key, or if the list cannot be fetched.
    pub async fn find(&self, identifier: &str) -> Result<ReportKey, NoKey> {
        let known = self.known();
        if let Some(answer) = self.settled(&known, identifier) {
            return answer;
        }
        let _flight = self.flight.lock().await;
        let before_us = self.known();
        if before_us.fetches == known.fetches {
            self.fetch_and_keep(&before_us).await;
        }
        self.after_fetch(&self.known(), identifier)
    }

    /// Fetches the list anew if it was fetched once and is old by now. This delays no report and refuses none: whether
    /// and when a report leads to a fetch does not depend on it, nor does what is known when it fails.
    pub async fn refresh(&self) {
        let known = self.known();
        let now = self.clock.now();
        let last = known.fetched_at.max(known.refreshed_at);
        if known.fetched_at.is_none() || last.is_some_and(|at| elapsed(at, now) < self.timings.ttl)
        {
            return;
        }
        let number = self.begin();
        let fetched = self.fetch_in_time(known.etag.as_ref()).await;
        // Only now: whoever needs the list meanwhile does not wait for this.
        let _flight = self.flight.lock().await;
        let mut next = self.known().as_ref().clone();
        next.refreshed_at = Some(now);
        match fetched {
            Ok(fetched) => next.take(number, fetched, now),
            Err(error) => tracing::info!(
                url = %self.url,
                %error,
                "public keys of a partner could not be refreshed; those that are known stay in use"
            ),
        }
        self.keep(next);
    }

    /// Returns why there is no key with this identifier, or `None` if there is one or only a fetch can tell.
    pub fn refusal(&self, identifier: &str) -> Option<NoKey> {
        self.settled(&self.known(), identifier)?.err()
    }

    /// Returns the answer if it does not require a fetch.
    fn settled(&self, known: &FetchedKeys, identifier: &str) -> Option<Result<ReportKey, NoKey>> {
        let now = self.clock.now();
        let fetch_allowed = self.wait(known, now).is_zero();
        match known.keys.get(identifier) {
            Some(key) if !fetch_allowed || !self.outdated(known, now) => Some(Ok(key.clone())),
            None if !fetch_allowed => Some(self.after_fetch(known, identifier)),
            _ => None,
        }
    }

    /// Returns the answer once no further fetch will be made.
    fn after_fetch(&self, known: &FetchedKeys, identifier: &str) -> Result<ReportKey, NoKey> {
        if let Some(key) = known.keys.get(identifier) {
            return Ok(key.clone());
        }
        let now = self.clock.now();
        let wait = self.wait(known, now);
        // After a minute the key may be a new one. Its sender has to come again then.
        let is_old = known
            .tried_at
            .is_none_or(|at| elapsed(at, now) >= self.timings.cool_down);
        if known.last_failed || is_old {
            return Err(NoKey::Unavailable {
                retry_after: wait.max(Duration::from_secs(1)),
            });
        }
        Err(NoKey::Unknown)
    }

    fn outdated(&self, known: &FetchedKeys, now: Timestamp) -> bool {
        known
            .fetched_at
            .is_none_or(|at| elapsed(at, now) >= self.timings.ttl)
    }

    /// Returns the time until the next fetch is allowed.
    fn wait(&self, known: &FetchedKeys, now: Timestamp) -> Duration {
        let pause = if known.last_failed {
            self.timings.retry_after_failure
        } else if known.fetches <= 1 {
            // The first fetch was not caused by an unknown key, so it does not start the cool-down.
            Duration::ZERO
        } else {
            let PublicKeyTimings {
                cool_down,
                longest_cool_down,
                ..
            } = self.timings;
            Backoff::new(cool_down, longest_cool_down).after(known.fruitless.saturating_sub(1))
        };
        known
            .tried_at
            .map_or(Duration::ZERO, |at| pause.saturating_sub(elapsed(at, now)))
    }

    async fn fetch_and_keep(&self, previous: &FetchedKeys) {
        let number = self.begin();
        let was_due = self.outdated(previous, self.clock.now());
        let fetched = self.fetch_in_time(previous.etag.as_ref()).await;
        let now = self.clock.now();
        let mut next = previous.clone();
        if !was_due && fetched.is_ok() {
            next.fruitless = next.fruitless.saturating_add(1);
        }
        next.fetches += 1;
        next.tried_at = Some(now);
        next.last_failed = fetched.is_err();
        match fetched {
            Ok(fetched) => next.take(number, fetched, now),
            Err(error) => tracing::warn!(
                url = %self.url,
                %error,
                keys_kept = next.keys.len(),
                "public keys of a partner could not be fetched"
            ),
        }
        self.keep(next);
    }

    /// Returns the number of a fetch that begins now.
    fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn keep(&self, next: FetchedKeys) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    async fn fetch_in_time(&self, etag: Option<&HeaderValue>) -> Result<Reply, FetchError> {
        let timeout = self.timings.timeout;
        let fetched = tokio::time::timeout(timeout, self.fetch(etag)).await;
        fetched.unwrap_or(Err(FetchError::Timeout(timeout)))
    }

    /// Fetches the list, unless it is still the one that the origin called `etag`.
    async fn fetch(&self, etag: Option<&HeaderValue>) -> Result<Reply, FetchError> {
        let request = |url| {
            let request = self.client.get(url).header(ACCEPT, "application/json");
            match etag {
                Some(etag) => request.header(IF_NONE_MATCH, etag),
                None => request,
            }
        };
        let mut response = send(&self.url, self.timings.timeout, request).await?;
        if etag.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Reply::Same);
        }
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status()));
        }
        let etag = response.headers().get(ETAG);
        let etag = etag.filter(|etag| etag.len() <= MAX_ETAG).cloned();
        let mut body = Vec::new();
        while let Some(chunk) = read_chunk(&mut response, self.timings.timeout).await? {
            if body.len() + chunk.len() > MAX_LIST {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let keys = read_list(&body)?;
        Ok(Reply::List { keys, etag })
    }

    fn known(&self) -> Arc<FetchedKeys> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FetchedKeys {
    /// Takes the result of a fetch, unless the list is that of one that began later: a slow answer may be from before a
    /// key was published.
    fn take(&mut self, number: u64, fetched: Reply, now: Timestamp) {
        if number < self.listed_by {
            return;
        }
        self.listed_by = number;
        if let Reply::List { keys, etag } = fetched {
            if keys != self.keys {
                self.fruitless = 0;
            }
            (self.keys, self.etag) = (keys, etag);
        }
        self.fetched_at = Some(now);
    }
}

/// Reads the list leniently: entries that are no P-256 key are left out, whatever else they are.
fn read_list(body: &[u8]) -> Result<HashMap<String, ReportKey>, FetchError> {
    let list: KeyList = serde_json::from_slice(body).map_err(|_| FetchError::Shape)?;
    let keys: HashMap<_, _> = list
        .public_keys
        .into_iter()
        .filter_map(|entry| {
            let listed: ListedKey = serde_json::from_value(entry).ok()?;
            Some((listed.key_identifier, ReportKey::from_pem(&listed.key)?))
        })
        .collect();
    if keys.is_empty() {
        return Err(FetchError::Empty);
    }
    Ok(keys)
}

/// Returns the time since `at`. If the clock was set back, all of it counts as elapsed: one fetch too
/// many is better than none until the clock has caught up.
fn elapsed(at: Timestamp, now: Timestamp) -> Duration {
    let since: SignedDuration = now.duration_since(at);
    Duration::try_from(since).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_usable_keys_only() {
        let vectors = include_str!("../../fixtures/vectors/github_partner.json");
        let mut list: serde_json::Value = serde_json::from_str(vectors).unwrap();
        let keys = list["public_keys"].as_array_mut().unwrap();
        keys.insert(0, serde_json::json!({"key_identifier": 7}));
        keys.insert(
            1,
            serde_json::json!({"key_identifier": "p384", "key": "-----BEGIN"}),
        );
        keys.push(serde_json::json!(null));
        let read = read_list(list.to_string().as_bytes()).unwrap();
        assert_eq!(read.len(), 3);
        assert!(!read.contains_key("p384"));
    }

    #[test]
    fn a_list_without_a_usable_key_is_no_list() {
        for body in ["", "[]", "{}", r#"{"public_keys":{}}"#] {
            assert!(
                matches!(read_list(body.as_bytes()), Err(FetchError::Shape)),
                "{body}"
            );
        }
        for body in [r#"{"public_keys":[]}"#, r#"{"public_keys":[1]}"#] {
            assert!(
                matches!(read_list(body.as_bytes()), Err(FetchError::Empty)),
                "{body}"
            );
        }
    }
}
