//! Reading of request bodies: bounded individually and in total, at a minimum pace, and declared as JSON where
//! required.

mod answers;
pub(super) mod budget;
pub(super) mod inflow;
pub(super) mod reading;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::client::Client;
use super::client::standing::{Standing, Standings};
use super::connections::pulse::Pulse;
use super::error::{ApiError, ApiResult};
use crate::memory;
use answers::Answers;
use budget::{Ask, Budget, NoRoom, Sender, Share};
use reading::{Reading, Unread, Waste};

/// Maximum size of a JSON request of the API, in bytes. Bodies declared no larger than this never wait for larger ones.
pub(super) const MAX_JSON: usize = 64 << 10;

/// Maximum size, in bytes, of a body that never waits for larger ones: of a self-report, and of most of what partners
/// and forges send.
const MAX_TINY: usize = 8 << 10;

/// Maximum size, in bytes, of any body.
const MAX_LARGE: usize = 25 << 20;

/// Budgets, in bytes, for bodies up to [`MAX_TINY`], up to [`MAX_JSON`], and for larger ones.
const TINY_BYTES: usize = memory::TINY_BODIES;
const SMALL_BYTES: usize = memory::SMALL_BODIES;
const LARGE_BYTES: usize = memory::LARGE_BODIES;

/// Maximum number of bytes made at a time from small bodies, and from larger ones, that were read and proved.
const SMALL_WORK: usize = memory::SMALL_WORK;
const LARGE_WORK: usize = memory::LARGE_WORK;

/// Delay of the answer that too many bodies are waiting. A client that asks again at once then has more connections
/// than others, not more chances.
const CROWDED_PAUSE: Duration = Duration::from_secs(1);

/// Value of `Retry-After` for a sender that was not admitted.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Budgets of all bodies together.
#[derive(Debug)]
pub(super) struct Bodies {
    tiny: Arc<Budget>,
    small: Arc<Budget>,
    large: Arc<Budget>,
    small_work: Arc<Budget>,
    large_work: Arc<Budget>,
    answers: Arc<Answers>,
    standings: Arc<Standings>,
}

/// Body that was read completely.
#[derive(Debug)]
pub(super) struct Whole {
    /// Bytes of the body.
    pub(super) bytes: Vec<u8>,
    /// Share of the budgets taken by the body and everything made from it. Must be kept as long as any of that exists.
    pub(super) hold: Hold,
}

/// Share of the budgets held by one body. Released on drop.
#[derive(Debug)]
pub(super) struct Hold {
    share: Share,
    work: Option<Share>,
    is_small: bool,
    client: IpAddr,
    standings: Arc<Standings>,
    pulse: Option<Arc<Pulse>>,
    answers: Arc<Answers>,
}

/// Limits on a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Maximum size in bytes.
    pub(super) limit: usize,
    /// Maximum time for the client to send it, once it is being read.
    pub(super) patience: Duration,
    /// `true` if the head of the request has identified the sender.
    pub(super) is_proved: bool,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self {
            tiny: Budget::new("up to 8 KiB", TINY_BYTES, MAX_TINY),
            small: Budget::new("up to 64 KiB", SMALL_BYTES, MAX_JSON),
            large: Budget::new("more than 64 KiB", LARGE_BYTES, MAX_LARGE),
            small_work: Budget::of_work("up to 64 KiB, to be worked on", SMALL_WORK),
            large_work: Budget::of_work("more than 64 KiB, to be worked on", LARGE_WORK),
            answers: Answers::new(),
            standings: Arc::new(Standings::new()),
        }
    }

    /// Returns the standings of senders.
    pub(super) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Returns whether this client sent something genuine lately.
    pub(super) fn knows(&self, client: IpAddr) -> bool {
        self.standings.of(client) == Standing::Known
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Returns 413 for a body that exceeds the limit, also when it arrives in chunks of unknown total; 408 for a client
    /// that takes too long or falls below the minimum pace; 503 when too many bodies are in flight. The connection is
    /// closed then.
    pub(super) async fn read(&self, parts: &Parts, body: Body, terms: Terms) -> ApiResult<Whole> {
        let Terms { limit, .. } = terms;
        refuse_too_large(&parts.headers, limit)?;
        let declared = content_length(&parts.headers);
        let declared = declared.and_then(|length| usize::try_from(length).ok());
        let client = Client::counted(parts);
        let sender = Sender {
            client,
            standing: if terms.is_proved {
                self.standings.of_proved(client)
            } else {
                self.standings.of(client)
            },
        };
        // A body of unknown length counts as small until it turns out to be large.
        let expected = declared.unwrap_or(limit.min(MAX_JSON));
        let is_small = expected <= MAX_JSON;
        let budget = if expected <= MAX_TINY {
            &self.tiny
        } else if is_small {
            &self.small
        } else {
            &self.large
        };
        let ask = Ask::of_body(expected);
        let share = budget.begin(sender, ask).await;
        if matches!(share, Err(NoRoom::Crowded)) {
            tokio::time::sleep(CROWDED_PAUSE).await;
        }
        let mut reading = Reading {
            share: share?,
            sender,
            large: &self.large,
            room: ask.now,
            most: declared.unwrap_or(limit),
            pulse: parts.extensions.get().cloned(),
            limit,
            is_small,
            ends: Instant::now() + terms.patience,
            bytes: Vec::with_capacity(declared.map_or(0, |_| ask.now)),
        };
        let waste = Waste {
            standings: &self.standings,
            client: Some(client),
            is_proved: terms.is_proved,
        };
        let mut chunks = body.into_data_stream();
        match reading.all(&mut chunks).await {
            Ok(()) => waste.was_none(),
            Err(Unread::NoRoom) => {
                waste.was_none();
                return Err(put_off());
            }
            Err(Unread::Slow) => {
                waste.was_slowness();
                return Err(put_off());
            }
            Err(Unread::Refused(error)) => return Err(error),
        }
        Ok(Whole {
            bytes: reading.bytes,
            hold: Hold {
                share: reading.share,
                work: None,
                is_small: reading.is_small,
                client,
                standings: Arc::clone(&self.standings),
                pulse: reading.pulse,
                answers: Arc::clone(&self.answers),
            },
        })
    }

    /// Waits for room to make `bytes` bytes from a body that is genuine; more than the whole budget counts as all of
    /// it. Clients take turns, and little goes before much: else whoever repeats a large report would have all others
    /// wait for each of its copies.
    ///
    /// # Errors
    /// Returns 503 if other bodies take too long.
    pub(super) async fn work(&self, hold: &mut Hold, bytes: usize) -> ApiResult<()> {
        let work = if hold.is_small {
            &self.small_work
        } else {
            &self.large_work
        };
        hold.share.keep();
        let sender = Sender {
            client: hold.client,
            standing: Standing::Known,
        };
        let share = work.share(sender, bytes.max(1 << 10)).await?;
        share.keep();
        hold.work = Some(share);
        Ok(())
    }
}

impl Hold {
    /// Waits for something that the proof requires. The body may be evicted while it waits.
    ///
    /// # Errors
    /// Returns 503 if the body is evicted, and any error of `needed`.
    pub(super) async fn until<T, E: Into<ApiError>>(
        &self,
        needed: impl Future<Output = Result<T, E>>,
    ) -> ApiResult<T> {
        tokio::select! {
            needed = needed => self.judged(needed),
            _ = self.share.turned_out() => Err(put_off()),
        }
    }

    /// Waits for `proof` that the body is genuine, and records its sender as trusted. A body that is being checked
    /// cannot be evicted: its bytes are in use until the check is over.
    ///
    /// # Errors
    /// Returns any error of `proof`.
    pub(super) async fn proved<T, E: Into<ApiError>>(
        &self,
        proof: impl Future<Output = Result<T, E>>,
    ) -> ApiResult<T> {
        self.share.keep();
        let proved = self.judged(proof.await)?;
        self.standings.trust(self.client);
        if let Some(pulse) = &self.pulse {
            pulse.prove();
        }
        Ok(proved)
    }

    /// Records the sender as distrusted if the body is not genuine.
    fn judged<T, E: Into<ApiError>>(&self, outcome: Result<T, E>) -> ApiResult<T> {
        let outcome = outcome.map_err(Into::into);
        outcome.inspect_err(|error| {
            if error.status() == StatusCode::UNAUTHORIZED {
                self.standings.distrust(self.client);
            }
        })
    }

    /// Returns an answer, which has a room of its own until it is read.
    ///
    /// # Errors
    /// Returns 503 if there is none.
    pub(super) fn answer(self, whole: Vec<u8>) -> ApiResult<Body> {
        self.answers.write(whole).ok_or_else(|| {
            let message = "The report is dealt with, but too many answers are being read slowly. Send it again for its answer.";
            ApiError::unavailable(message, RETRY_AFTER).of_many()
        })
    }
}

impl From<NoRoom> for ApiError {
    fn from(_: NoRoom) -> Self {
        put_off()
    }
}

/// Returns the error for a lack of room. The log reports all bodies refused for it together.
fn put_off() -> ApiError {
    let message = "Too much is being sent to this server at once. Nothing was changed; send the request again later.";
    ApiError::unavailable(message, RETRY_AFTER).of_many()
}

/// Refuses a body declared larger than `limit` bytes.
///
/// # Errors
/// Returns 413.
pub(super) fn refuse_too_large(headers: &HeaderMap, limit: usize) -> ApiResult<()> {
    let declared = content_length(headers);
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::body_too_large(limit));
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Refuses a body that is not declared as `application/json` (or `…+json`), whatever its parameters.
///
/// # Errors
/// Returns 415.
pub(super) fn require_json(headers: &HeaderMap) -> ApiResult<()> {
    let declared = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || essence
            .rsplit_once('+')
            .is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"));
    if json {
        Ok(())
    } else {
        Err(ApiError::media_type("application/json"))
    }
}

/// Parses a JSON object. No error repeats what was sent.
///
/// # Errors
/// Returns 400 if the body is not valid JSON, or not an object.
pub(super) fn parse_object(body: &[u8]) -> ApiResult<Map<String, Value>> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::body_parsing(if body.is_empty() {
            "The body is empty. Send a JSON object.".to_owned()
        } else {
            format!(
                "The body is not valid JSON: line {}, column {}.",
                error.line(),
                error.column()
            )
        })
    })?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::schema_without_field(
            "The body has to be a JSON object.",
        )),
    }
}
