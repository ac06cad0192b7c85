//! Webhooks of forges: verify the raw bytes, scan every text on the spot, and record what was pushed.
//!
//! The headers of a delivery show that it may be genuine ([`Webhook::expects`]), its proof is verified
//! over the bytes as they arrived (`verify`), and it is received ([`Webhook::receive`]): a header names
//! the event (`forge`), the body is parsed (`payload`), and its pushes (`forges`, one file per shape of
//! payload) become work items. Keys in the payload itself become sightings at once; the text is not
//! stored. The result is committed by the [`Inbox`], many deliveries in one transaction, and only then is
//! the delivery answered. A delivery without work items or sightings, as most are, does not touch the
//! database.

mod bitbucket;
mod counts;
mod error;
mod forges;
mod github_like;
mod gitlab;
mod headers;
mod inbox;
mod many;
mod meaning;
mod payload;
mod places;
mod reading;
mod verify;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use secrecy::SecretString;

pub use error::WebhookError;
pub use headers::NoEvent;
pub use inbox::{Inbox, InboxParts, InboxTask};
pub use payload::BodyError;
use payload::most_kept;
pub use places::ClonePlaces;
pub use verify::Unverified;

use crate::forge::{Forge, Gathered, ToldItem};
use crate::respond::{CleanSightings, MANY_FOUND, Responder};
use crate::scan::Engine;
use crate::store::Reason;
use counts::{DeliveryCounts, Refusal};
use inbox::{Entry, NotTaken, Taken};
use reading::Read;
use verify::Verifier;

/// Maximum size of a delivery, in bytes. GitHub caps payloads at 25 MB.
pub const MAX_DELIVERY: usize = 25 << 20;

/// Size in bytes above which bodies are processed on a blocking thread, so that other requests need not wait: one of
/// 64 KiB that is full of keys takes some milliseconds, and dozens may come at once.
const LARGE: usize = 8 << 10;

/// Sizes, in bytes, of the bodies that are scanned in turn.
const MEDIUM: RangeInclusive<usize> = LARGE + 1..=64 << 10;

/// Memory that a delivery takes while it is read and while its contents wait to be stored, as a multiple
/// of its size: a push of a hundred bytes becomes a work item of six hundred.
const COST: usize = 8;

/// Time after which to resend a delivery that found the inbox full.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Time after which a delivery that found no room in the queue should be sent again. The workers need
/// that long to make room.
const RETRY_WHEN_FULL: Duration = Duration::from_mins(1);

/// Configuration of one forge's webhook.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// Forge that sends the deliveries.
    pub forge: Forge,
    /// Secrets with which deliveries may be signed, at least one.
    pub secrets: Vec<SecretString>,
    /// Permitted clone URLs.
    pub places: ClonePlaces,
}

/// Receiver of one forge's webhooks.
#[derive(Debug)]
pub struct Webhook {
    forge: Forge,
    verifier: Verifier,
    places: ClonePlaces,
    responder: Responder,
    engine: Arc<Engine>,
    inbox: Inbox,
    counts: Arc<DeliveryCounts>,
}

/// A delivery whose sender is verified and whose body is not parsed yet.
#[derive(Debug)]
pub struct Proved {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Proved {
    /// Returns an estimate of the memory that reading the delivery and storing its contents takes at
    /// most, in bytes.
    pub fn cost(&self) -> usize {
        let length = self.body.len();
        // Smaller ones are read one after the other.
        let kept = if length > *MEDIUM.end() {
            most_kept(length)
        } else {
            0
        };
        COST * length + kept
    }
}

impl Webhook {
    /// Creates a webhook whose deliveries go into the inbox of `parts`.
    pub fn new(
        options: WebhookOptions,
        responder: Responder,
        engine: Arc<Engine>,
        parts: &InboxParts,
    ) -> Self {
        let counts = Arc::new(DeliveryCounts::new(options.forge, responder.clock().now()));
        let mut places = options.places;
        places.allow_public(options.forge);
        // The task exists until the last inbox is dropped.
        let _ = parts.all_counts.send(Arc::clone(&counts));
        Self {
            forge: options.forge,
            verifier: Verifier::new(options.forge, options.secrets),
            places,
            responder,
            engine,
            inbox: parts.inbox.clone(),
            counts,
        }
    }

    /// Returns the forge whose deliveries the webhook receives.
    pub fn forge(&self) -> Forge {
        self.forge
    }

    /// Counts a delivery that was too large to be read.
    pub fn refused_as_too_large(&self) {
        self.counts.refused(Refusal::TooLarge);
    }

    /// Counts a delivery for which there was no room.
    pub fn refused_for_lack_of_room(&self) {
        self.counts.refused(Refusal::Unavailable);
    }

    /// Checks the headers of a delivery before its body is read.
    ///
    /// # Errors
    /// Returns [`WebhookError::Unverified`] if no body could make the delivery genuine.
    pub fn expects(&self, headers: &HeaderMap) -> Result<(), WebhookError> {
        let expected = self.verifier.expects(headers).map_err(Into::into);
        self.counted(expected)
    }

    /// Verifies the unmodified bytes of a delivery's body.
    ///
    /// # Errors
    /// Returns [`WebhookError::Unverified`] if the delivery is not genuine.
    pub async fn verify(
        self: &Arc<Self>,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Proved, WebhookError> {
        let size = body.len();
        let verified = self.anywhere(size, move |webhook| {
            let now = webhook.responder.clock().now();
            webhook.verifier.verify(&headers, &body, now)?;
            Ok(Proved { headers, body })
        });
        self.counted(verified.await)
    }

    /// Receives a delivery whose sender is verified. Once this returns, the contents of the delivery are
    /// in the database. `has_read` is called when it was read, and only the database is waited for.
    ///
    /// # Errors
    /// Returns a [`WebhookError`] if the delivery was not received. It can be repeated in that case.
    pub async fn receive(
        self: &Arc<Self>,
        delivery: Proved,
        has_read: impl FnOnce() + Send,
    ) -> Result<(), WebhookError> {
        let outcome = match self.read_in_turn(delivery).await {
            Ok(read) => {
                has_read();
                self.keep(read).await
            }
            Err(error) => Err(error),
        };
        self.counted(outcome)
    }

    /// Counts the delivery if it was refused.
    fn counted<T>(&self, outcome: Result<T, WebhookError>) -> Result<T, WebhookError> {
        if let Err(error) = &outcome {
            let (refusal, loss) = error.counts_as();
            if let Some(loss) = loss {
                self.counts.dropped(loss, self.responder.clock().now());
            }
            self.counts.refused(refusal);
        }
        outcome
    }

    /// Runs work that takes time proportional to the size of a body, on a blocking thread if the body is
    /// large.
    async fn anywhere<T: Send + 'static>(
        self: &Arc<Self>,
        size: usize,
        work: impl FnOnce(&Self) -> Result<T, WebhookError> + Send + 'static,
    ) -> Result<T, WebhookError> {
        if size <= LARGE {
            return work(self);
        }
        let webhook = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&webhook))
            .await
            .map_err(|_| WebhookError::Died)?
    }

    /// Reports sightings that are too many for the transaction that a delivery shares with others. Returns those that
    /// are left.
    async fn report_many(&self, sightings: CleanSightings) -> Result<CleanSightings, WebhookError> {
        if sightings.len() < MANY_FOUND {
            return Ok(sightings);
        }
        self.report(sightings).await?;
        Ok(CleanSightings::default())
    }

    async fn report(&self, sightings: CleanSightings) -> Result<(), WebhookError> {
        if sightings.is_empty() {
            return Ok(());
        }
        let actor = self.forge.source();
        let reported = self
            .responder
            .report_clean(sightings, Reason::Leaked, actor);
        reported.await.map_err(Arc::new)?;
        Ok(())
    }

    async fn keep(&self, read: Read) -> Result<(), WebhookError> {
        let Read {
            id,
            gathered,
            mut early,
            outcome,
        } = read;
        let Gathered {
            mut items,
            mut candidates,
            ..
        } = gathered;
        // Most candidates are not known keys; they are dropped before anything waits for the write lock.
        let store = self.responder.store();
        let mut sightings = candidates.take_ours(store).await.map_err(Arc::new)?;
        drop(candidates);
        let good = match outcome {
            Ok(good) => good,
            // Its identifier is not remembered: it may come again in a form that can be read.
            Err(refused) => {
                self.report(sightings).await?;
                return Err(refused);
            }
        };
        self.commit_early(&mut items, &mut sightings, &mut early)
            .await?;
        if early.is_full {
            // They count whether or not the sender retries.
            self.report(sightings).await?;
            return Err(full());
        }
        let sightings = self.report_many(sightings).await?;
        if items.is_empty() && sightings.is_empty() && !early.is_any {
            self.counts.good(good);
            return Ok(());
        }
        match self.take(id, items, sightings).await? {
            Taken::New => self.counts.good(good),
            Taken::Repeated => {
                tracing::debug!(source = self.forge.source(), "a delivery was repeated");
            }
            Taken::Full => return Err(full()),
        }
        Ok(())
    }

    /// Hands contents of a delivery to the inbox, and waits until they are committed.
    async fn take(
        &self,
        id: Option<String>,
        items: Vec<ToldItem>,
        sightings: CleanSightings,
    ) -> Result<Taken, WebhookError> {
        let counts = Arc::clone(&self.counts);
        let taken = self.inbox.take(|answer| Entry {
            counts,
            id,
            items,
            sightings,
            answer,
        });
        taken.await.map_err(|error| match error {
            NotTaken::Busy => WebhookError::Busy {
                retry_after: RETRY_AFTER,
            },
            NotTaken::Store(error) => error.into(),
        })
    }
}

fn full() -> WebhookError {
    WebhookError::Full {
        retry_after: RETRY_WHEN_FULL,
    }
}
