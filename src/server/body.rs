//! Reading request bodies: bounded one by one and all together, at a pace, declared as JSON, field by field.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::stream;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::budget::{Budget, NoRoom, Sender, Share};
use super::client::Client;
use super::error::{ApiError, ApiResult};
use super::pulse::Pulse;
use super::reading::{Reading, Unread, Waste};
use super::standing::{Standing, Standings};

/// The most a JSON request of the API may have, in bytes. Bodies that are declared to have no more wait for none
/// that have more.
pub(super) const MAX_JSON: usize = 64 << 10;

/// The most bytes of a body that waits for none that has more: of a self-report, of most of what partners and servers
/// send.
const MAX_TINY: usize = 8 << 10;

/// How many bytes of bodies up to [`MAX_TINY`], up to [`MAX_JSON`], and of larger ones, are under way at a time.
const TINY_BYTES: usize = 4 << 20;
const SMALL_BYTES: usize = 12 << 20;
const LARGE_BYTES: usize = 32 << 20;

/// How many bytes may be made at a time of small bodies, and of larger ones, that were read and proved.
const SMALL_WORK: usize = 24 << 20;
const LARGE_WORK: usize = 64 << 20;

/// The patience of a body while others are worked on. It is whole and genuine: what it waits for is this server.
const WORK_PATIENCE: Duration = Duration::from_secs(18);

/// How long the answer is kept back that too many wait. Whoever asks again at once has more connections than others
/// then, not more chances.
const CROWDED_PAUSE: Duration = Duration::from_secs(1);

/// When a sender that was not admitted may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How an answer is written that is not small, and how long its reader has for it.
const PIECE: usize = 64 << 10;
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What all bodies together may take.
#[derive(Debug)]
pub(super) struct Bodies {
    tiny: Arc<Budget>,
    small: Arc<Budget>,
    large: Arc<Budget>,
    small_work: Arc<Semaphore>,
    large_work: Arc<Semaphore>,
    standings: Arc<Standings>,
}

/// A body that was read whole.
#[derive(Debug)]
pub(super) struct Whole {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// What it and everything made of it takes of the budgets. Keep it as long as there is any of that.
    pub(super) hold: Hold,
}

/// A body's part of the budgets, given back when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    share: Share,
    work: Option<OwnedSemaphorePermit>,
    is_small: bool,
    client: IpAddr,
    standings: Arc<Standings>,
    pulse: Option<Arc<Pulse>>,
}

/// Bounds on a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The most bytes it may have.
    pub(super) limit: usize,
    /// The longest time for its client to send it, once it is being read.
    pub(super) patience: Duration,
    /// Whether the head of the request has shown who sends it.
    pub(super) is_proved: bool,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self {
            tiny: Budget::new("up to 8 KiB", TINY_BYTES),
            small: Budget::new("up to 64 KiB", SMALL_BYTES),
            large: Budget::new("more than 64 KiB", LARGE_BYTES),
            small_work: Arc::new(Semaphore::new(SMALL_WORK >> 10)),
            large_work: Arc::new(Semaphore::new(LARGE_WORK >> 10)),
            standings: Arc::new(Standings::new()),
        }
    }

    /// Returns what is known of senders.
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
    /// 413 for more than `terms` allow, also when it arrives in chunks of unknown total; 408 for a client that takes
    /// too long or dawdles; 503 when too many bodies are under way. The connection is closed then.
    pub(super) async fn read(&self, parts: &Parts, body: Body, terms: Terms) -> ApiResult<Whole> {
        let Terms { limit, .. } = terms;
        refuse_too_large(&parts.headers, limit)?;
        let declared = content_length(&parts.headers);
        let declared = declared.and_then(|length| usize::try_from(length).ok());
        let client = Client::counted(parts);
        let sender = Sender {
            client,
            standing: if terms.is_proved {
                Standing::Known
            } else {
                self.standings.of(client)
            },
        };
        // One of unknown length is a small one until it turns out not to be.
        let expected = declared.unwrap_or(limit.min(MAX_JSON));
        let is_small = expected <= MAX_JSON;
        let budget = if expected <= MAX_TINY {
            &self.tiny
        } else if is_small {
            &self.small
        } else {
            &self.large
        };
        let share = budget.share(sender, expected).await;
        if matches!(share, Err(NoRoom::Crowded)) {
            tokio::time::sleep(CROWDED_PAUSE).await;
        }
        let mut reading = Reading {
            share: share?,
            sender,
            large: &self.large,
            room: expected,
            pulse: parts.extensions.get().cloned(),
            limit,
            is_small,
            bytes: Vec::with_capacity(declared.unwrap_or(0)),
        };
        let waste = Waste {
            standings: &self.standings,
            client: (!terms.is_proved).then_some(client),
        };
        let mut chunks = body.into_data_stream();
        let read = tokio::time::timeout(terms.patience, reading.all(&mut chunks)).await;
        match read.map_err(|_| ApiError::body_timeout())? {
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
            },
        })
    }

    /// Waits until `bytes` may be made of a body; more than there ever may be counts as all of it.
    ///
    /// # Errors
    /// 503 when other bodies take too long.
    pub(super) async fn work(&self, hold: &mut Hold, bytes: usize) -> ApiResult<()> {
        let (work, total) = if hold.is_small {
            (&self.small_work, SMALL_WORK)
        } else {
            (&self.large_work, LARGE_WORK)
        };
        hold.share.keep();
        let permits = (bytes.min(total) >> 10).max(1);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let acquired = Arc::clone(work).acquire_many_owned(permits);
        let acquired = tokio::time::timeout(WORK_PATIENCE, acquired).await;
        hold.work = Some(acquired.map_err(|_| busy())?.map_err(|_| busy())?);
        Ok(())
    }
}

impl Hold {
    /// Waits for something that is needed for the proof. Meanwhile the body may have to make room for others.
    ///
    /// # Errors
    /// 503 when it has to make room, and that of `needed`.
    pub(super) async fn until<T, E: Into<ApiError>>(
        &self,
        needed: impl Future<Output = Result<T, E>>,
    ) -> ApiResult<T> {
        tokio::select! {
            needed = needed => self.judged(needed),
            _ = self.share.turned_out() => Err(put_off()),
        }
    }

    /// Waits for `proof` that the body is genuine, and remembers its sender for it. What is being checked cannot make
    /// room: its bytes are in use until the check is over.
    ///
    /// # Errors
    /// That of `proof`.
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

    /// Remembers who sent what is not genuine.
    fn judged<T, E: Into<ApiError>>(&self, outcome: Result<T, E>) -> ApiResult<T> {
        let outcome = outcome.map_err(Into::into);
        outcome.inspect_err(|error| {
            if error.status() == StatusCode::UNAUTHORIZED {
                self.standings.distrust(self.client);
            }
        })
    }

    /// An answer that takes what the body took until it is written. Its reader has [`ANSWER_TIME`] for it.
    pub(super) fn answer(self, whole: Vec<u8>) -> Body {
        self.share.shrink_to(whole.len());
        if whole.len() <= PIECE {
            return Body::from(whole);
        }
        let deadline = Instant::now() + ANSWER_TIME;
        let pieces = stream::unfold(
            (Bytes::from(whole), self),
            move |(mut rest, hold)| async move {
                if rest.is_empty() {
                    return None;
                }
                let piece = rest.split_to(rest.len().min(PIECE));
                let piece = if Instant::now() < deadline {
                    Ok(piece)
                } else {
                    Err("the answer is not read")
                };
                Some((piece, (rest, hold)))
            },
        );
        Body::from_stream(pieces)
    }
}

impl From<NoRoom> for ApiError {
    fn from(_: NoRoom) -> Self {
        put_off()
    }
}

/// For want of room, which the log tells of all such bodies together.
fn put_off() -> ApiError {
    busy().of_many()
}

fn busy() -> ApiError {
    let message = "Too much is being sent to this server at once. Nothing was changed; send the request again later.";
    ApiError::unavailable(message, RETRY_AFTER)
}

/// Refuses a body that is declared to have more than `limit` bytes.
///
/// # Errors
/// 413
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

/// Parses a JSON object. Neither the syntax error nor anything else repeats what was sent.
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
