//! HTTP: connections, router, access tokens, errors, the API.
//!
//! A connection gets a place (`places`) and has to keep pace (`guarded`). Of a request's head, only the headers that
//! are used are kept (`head`). Bodies share a budget (`budget`, `body`, `reading`), which senders that proved
//! themselves get first (`standing`), even if that was before a restart (`recall`). A request goes to the API once it
//! is available (`entrance`), is assigned its client's address (`client`), passes `layers` (identifier, time limit, log
//! line), finds its handler in `router`, shows its access token to [`Caller`], has its body parsed field by field by
//! `fields`, and is answered by one file of [`api`], which also describes it: [`document`] collects the descriptions.
//! Every failure becomes an [`ApiError`]. The caller of [`router`] builds an [`AppState`], runs the task behind its
//! [`Lookup`], and hands the router to [`serve`].

mod access;
pub mod api;
mod body;
mod client;
mod connections;
mod counted;
mod docs;
mod error;
mod fields;
mod headers;
mod idempotency;
mod layers;
mod openapi;
mod query;
mod router;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use access::{Caller, Permission};
pub use client::TrustedProxies;
pub use connections::entrance::Entrance;
pub use connections::finisher::Finisher;
pub use connections::places::{Connections, MOMENTARY_CONNECTIONS, MOST_CONNECTIONS};
pub use connections::serve::serve;
pub use error::{ApiError, ApiResult, ErrorCode};
pub use query::{MAX_LIMIT, Query};
pub use router::{document, router};

use crate::fair::{FairPlace, FairPlaces};
use crate::intake::webhook::Webhook;
use crate::intake::{Partner, RevocationApi, mended_json};
use crate::issuer::Issuer;
use crate::keyformat::FormatSet;
use crate::memory::EXPORTS;
use crate::respond::Responder;
use crate::scan::Redactor;
use crate::source::ConfiguredSource;
use crate::store::{Lookup, Store, Urgency};
use body::{Bodies, Hold, Terms, Whole};
use client::Client;
use client::limit::SharedLimit;
use client::listings::{Ask, Claim, Listings};
use client::turns::Turns;
use client::whole_log::{Leave, WholeLog};
use connections::head::Heads;
use connections::pulse::Pulse;
use counted::Counted;
use fields::{Fields, JsonBody};
use layers::RequestIds;

/// Maximum number of self-reports that are looked up and recorded at a time.
const SELF_REPORTS_AT_ONCE: usize = 8;

/// Maximum number of further self-reports that wait for that.
const SELF_REPORTS_WAITING: usize = 256;

/// Maximum number of imports that are read and stored at a time, and of further ones that wait for that.
const IMPORTS_AT_ONCE: usize = 4;
const IMPORTS_WAITING: usize = 32;

/// Maximum number of keys that are created, rotated or changed at a time, and of further ones that wait for that.
const KEY_WRITES_AT_ONCE: usize = 8;
const KEY_WRITES_WAITING: usize = 256;

/// Maximum time that a caller who creates, rotates or changes a key waits for others. Whoever is refused before is told
/// only then: a caller that asks again at once would else have the server do nothing but refuse.
const KEY_WRITE_PATIENCE: Duration = Duration::from_secs(8);

/// Maximum time in which the database puts a list together, once it is its turn.
const LIST_TIME: Duration = Duration::from_secs(5);

/// Value of `Retry-After` for whoever asked for a list that was not put together.
const LIST_RETRY: Duration = Duration::from_secs(5);

/// Interval at which lists of public keys are checked for their age.
const KEYS_LOOKED_AT: Duration = Duration::from_mins(5);

/// Request limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum time until the answer to a request begins.
    pub request_time: Duration,
    /// Maximum time that a client may take to send its body. Shorter than `request_time`, so that a slow client and a
    /// slow server get different answers.
    pub body_time: Duration,
    /// Self-reports of well-formed keys that nobody holds, per minute and client address, all of which may arrive at
    /// once. Keys that somebody holds are revoked even above the limit.
    pub self_reports_per_minute: NonZeroU32,
    /// Requests to the token revocation API per minute and token.
    pub revocations_per_minute: NonZeroU32,
    /// Uses after exposure that are recorded per minute and key.
    pub uses_per_minute: NonZeroU32,
    /// Exports and verifications of the whole revocation log at a time; one access token may have at most half of them.
    pub whole_log: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const THIRTY: NonZeroU32 = NonZeroU32::new(30).unwrap();
        const SIXTY: NonZeroU32 = NonZeroU32::new(60).unwrap();
        const SIX_HUNDRED: NonZeroU32 = NonZeroU32::new(600).unwrap();
        Self {
            request_time: Duration::from_secs(30),
            body_time: Duration::from_secs(25),
            self_reports_per_minute: THIRTY,
            revocations_per_minute: SIX_HUNDRED,
            uses_per_minute: SIXTY,
            whole_log: EXPORTS,
        }
    }
}

/// Senders of reports and deliveries. Those that are not configured have no route.
#[derive(Debug, Default)]
pub struct Intake {
    /// Partners that sign their reports.
    pub partners: Vec<Partner>,
    /// GitLab instances that send revocations.
    pub revocation: Option<RevocationApi>,
    /// Forges that deliver pushes and texts.
    pub webhooks: Vec<Arc<Webhook>>,
}

/// State shared by all handlers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: Issuer,
    lookup: Lookup,
    intake: Intake,
    sources: Vec<ConfiguredSource>,
    rooms: Arc<Rooms>,
    document: Bytes,
    page: docs::Page,
}

/// State that outlives a change of the configuration: limits, turns, and what is known of clients.
#[derive(Debug)]
struct Rooms {
    limits: Limits,
    self_reports: SharedLimit,
    revocations: SharedLimit,
    uses: SharedLimit,
    heads: Heads,
    bodies: Bodies,
    whole_log: Arc<WholeLog>,
    listings: Arc<Listings>,
    request_ids: RequestIds,
    self_report_turns: Arc<Turns>,
    imports: Arc<FairPlaces>,
    key_writes: Arc<FairPlaces>,
    counted: Counted,
}

impl Rooms {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            self_reports: SharedLimit::per_minute(limits.self_reports_per_minute),
            revocations: SharedLimit::per_minute(limits.revocations_per_minute),
            uses: SharedLimit::per_minute(limits.uses_per_minute),
            heads: Heads::new(),
            bodies: Bodies::new(),
            whole_log: WholeLog::new(limits.whole_log),
            listings: Listings::new(),
            request_ids: RequestIds::new(),
            self_report_turns: Turns::new(SELF_REPORTS_AT_ONCE, SELF_REPORTS_WAITING),
            imports: FairPlaces::new(IMPORTS_AT_ONCE, IMPORTS_WAITING),
            key_writes: FairPlaces::new(KEY_WRITES_AT_ONCE, KEY_WRITES_WAITING),
            counted: Counted::default(),
        }
    }
}

impl AppState {
    /// Creates the state of a server that acts through `issuer` and its responder, answers checks through `lookup`
    /// (whose task the caller runs), receives what `intake` is configured for, and reports the state of the configured
    /// `sources`.
    pub fn new(
        issuer: Issuer,
        lookup: Lookup,
        intake: Intake,
        sources: Vec<ConfiguredSource>,
        limits: Limits,
    ) -> Self {
        Self(Arc::new(Inner {
            issuer,
            lookup,
            intake,
            sources,
            rooms: Arc::new(Rooms::new(limits)),
            document: document(),
            page: router::page(),
        }))
    }

    /// Returns the state of the same server with another configuration: what is in flight counts against the same
    /// limits.
    #[must_use]
    pub fn renewed(&self, issuer: Issuer, intake: Intake, sources: Vec<ConfiguredSource>) -> Self {
        Self(Arc::new(Inner {
            issuer,
            lookup: self.0.lookup.clone(),
            intake,
            sources,
            rooms: Arc::clone(&self.0.rooms),
            document: self.0.document.clone(),
            page: self.0.page.clone(),
        }))
    }

    /// Loads the senders that proved themselves before the last restart, and stores new ones until `stop`.
    pub async fn keep_senders(self, stop: CancellationToken) {
        let (store, clock) = (self.store().clone(), Arc::clone(self.responder().clock()));
        let rooms = Arc::clone(&self.0.rooms);
        // What follows from the configuration may be replaced meanwhile.
        drop(self);
        let recall = &rooms.bodies.standings().recall;
        recall.keep(&store, &clock, &stop).await;
    }

    /// Refreshes the public keys of partners periodically until `stop`.
    pub async fn keep_public_keys(self, stop: CancellationToken) {
        while tokio::time::timeout(KEYS_LOOKED_AT, stop.cancelled())
            .await
            .is_err()
        {
            for partner in &self.0.intake.partners {
                partner.refresh_keys().await;
            }
        }
    }

    fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    fn responder(&self) -> &Responder {
        self.0.issuer.responder()
    }

    fn store(&self) -> &Store {
        self.responder().store()
    }

    fn formats(&self) -> &FormatSet {
        self.responder().formats()
    }

    fn redactor(&self) -> &Redactor {
        self.responder().redactor()
    }

    fn now(&self) -> Timestamp {
        self.responder().clock().now()
    }

    fn sources(&self) -> &[ConfiguredSource] {
        &self.0.sources
    }

    fn lookup(&self) -> &Lookup {
        &self.0.lookup
    }

    /// Returns whether the client of a request proved itself lately.
    fn is_known(&self, request: &Request) -> bool {
        let pulse = request.extensions().get::<Arc<Pulse>>();
        pulse.is_some_and(|pulse| pulse.is_proved())
            || Client::of(request.extensions())
                .is_some_and(|client| self.0.rooms.bodies.knows(client.counted_by()))
    }

    /// Reads a body of at most `limit` bytes. Whatever can be refused without the body should have been refused before.
    async fn read(&self, parts: &Parts, body: Body, limit: usize) -> ApiResult<Whole> {
        self.read_of(false, parts, body, limit).await
    }

    /// Reads a body of at most `limit` bytes whose sender was identified by the head of the request.
    async fn read_proved(&self, parts: &Parts, body: Body, limit: usize) -> ApiResult<Whole> {
        self.read_of(true, parts, body, limit).await
    }

    async fn read_of(
        &self,
        is_proved: bool,
        parts: &Parts,
        body: Body,
        limit: usize,
    ) -> ApiResult<Whole> {
        let terms = self.terms(is_proved, limit);
        self.0.rooms.bodies.read(parts, body, terms).await
    }

    fn terms(&self, is_proved: bool, limit: usize) -> Terms {
        Terms {
            limit,
            patience: self.0.rooms.limits.body_time,
            is_proved,
        }
    }

    /// Waits for a permit for a caller to read the whole revocation log for as long as it is held.
    ///
    /// # Errors
    /// Returns 503 if no place becomes free, or none for this access token.
    async fn whole_log(&self, caller: &Caller) -> ApiResult<Leave> {
        let leave = self.0.rooms.whole_log.leave(caller.token_id).await;
        leave.ok_or_else(|| {
            let message = "The whole log is being exported or verified for others, or often enough for this access token. Try again later.";
            ApiError::unavailable(message, Duration::from_secs(5)).of_many()
        })
    }

    /// Waits for the turn of a caller to write a key, among other projects and access tokens.
    ///
    /// # Errors
    /// Returns 503 if it does not come in time, or if too many wait.
    async fn turn_to_write(&self, caller: &Caller) -> ApiResult<FairPlace> {
        let until = Instant::now() + KEY_WRITE_PATIENCE;
        let places = &self.0.rooms.key_writes;
        if let Ok(place) = places.place(caller.claim(), KEY_WRITE_PATIENCE).await {
            return Ok(place);
        }
        tokio::time::sleep_until(until).await;
        let message =
            "Too many keys are being written at once. Nothing was changed; try again later.";
        Err(ApiError::unavailable(message, KEY_WRITE_PATIENCE).of_many())
    }

    /// Returns the store that lists are read from: they wait for each other, and nobody for them.
    fn lists(&self) -> Store {
        self.store().with_urgency(Urgency::Listing)
    }

    /// Answers a caller with a list or a detailed view, as JSON, which is put together when it is its turn.
    ///
    /// # Errors
    /// Returns 503 if too many lists are asked for, too much of them is not read, or the list takes too long, and any
    /// error of `list`.
    async fn listed<T: Serialize>(
        &self,
        caller: &Caller,
        list: impl Future<Output = ApiResult<T>>,
    ) -> ApiResult<Response> {
        self.found(caller, false, list).await
    }

    /// Answers like [`listed`](Self::listed), with what was searched for if `is_search` says so.
    ///
    /// # Errors
    /// Returns the errors of [`listed`](Self::listed).
    async fn found<T: Serialize>(
        &self,
        caller: &Caller,
        is_search: bool,
        list: impl Future<Output = ApiResult<T>>,
    ) -> ApiResult<Response> {
        let claim = Claim {
            project: caller.project.clone(),
            token: caller.token_id,
        };
        let place = self.0.rooms.listings.place(Ask { claim, is_search }).await;
        let place = place.map_err(|_| {
            let message = "Too many lists are asked for at once, or are not read. Try again later.";
            ApiError::unavailable(message, LIST_RETRY).of_many()
        })?;
        let list = tokio::time::timeout(LIST_TIME, list).await.map_err(|_| {
            let message = "The list takes too long to put together. Ask for a part of it, by time or with other filters, or try again later.";
            ApiError::unavailable(message, LIST_RETRY).of_many()
        })??;
        let json = serde_json::to_vec(&list).map_err(|error| {
            tracing::error!(%error, "a list could not be written as JSON");
            ApiError::internal()
        })?;
        drop(list);
        Ok(place.answer(json))
    }

    /// Waits for room to make `bytes` bytes from a body that was read.
    async fn work(&self, hold: &mut Hold, bytes: usize) -> ApiResult<()> {
        self.0.rooms.bodies.work(hold, bytes).await
    }

    /// Reads the body of a request. The [`Caller`] must have been identified before.
    async fn body<T: JsonBody>(&self, request: Request) -> ApiResult<T> {
        self.body_of(true, request).await
    }

    /// Reads the body of an anonymous request.
    async fn strangers_body<T: JsonBody>(&self, request: Request) -> ApiResult<T> {
        self.body_of(false, request).await
    }

    async fn body_of<T: JsonBody>(&self, is_proved: bool, request: Request) -> ApiResult<T> {
        let (parts, body) = request.into_parts();
        body::require_json(&parts.headers)?;
        let body = self.read_of(is_proved, &parts, body, body::MAX_JSON);
        let mut body = body.await?;
        let json = if is_proved {
            &body.bytes
        } else {
            // A stranger may pass on what an editor or a scanner made odd: that saves no leaked key.
            mended_json(&mut body.bytes).as_bytes()
        };
        let mut fields = Fields::new(body::parse_object(json)?, self.redactor());
        let read = T::take(&mut fields)?;
        fields.finish()?;
        Ok(read)
    }
}
