//! Webhooks of forges: verify the raw bytes, scan every text on the spot, and record what was pushed.
//!
//! The headers of a delivery show that it may be genuine ([`Webhook::expects`]), its proof is verified
//! over the bytes as they arrived (`verify`), and it is received ([`Webhook::receive`]): a header names
//! the event (`forge`), the body is parsed (`payload`), and its pushes (`meaning`, one file per shape of
//! payload) become work items. Keys in the payload itself become sightings at once; the text is not
//! stored. The result is committed by the [`Inbox`], many deliveries in one transaction, and only then is
//! the delivery answered. A delivery without work items or sightings, as most are, does not touch the
//! database.

mod bitbucket;
mod forge;
mod gitlab;
mod hub;
mod inbox;
mod meaning;
mod payload;
mod places;
mod tally;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

pub use forge::{Forge, NoEvent};
pub use inbox::{Inbox, InboxParts, InboxTask};
pub use payload::BodyError;
pub use places::ClonePlaces;
pub use verify::Unverified;

use crate::forge::{Gathered, Gatherer, Rest};
use crate::respond::{REPOSITORY_MAX, Responder, shorten};
use crate::scan::Engine;
use crate::store::{Priority, Reason, StoreError};
use inbox::{Entry, NotTaken, Taken};
use meaning::{Delivered, Meaning};
use tally::{Good, Loss, Refusal, Tally};
use verify::Verifier;

/// Maximum size of a delivery, in bytes. GitHub caps payloads at 25 MB.
pub const MAX_DELIVERY: usize = 25 << 20;

/// Size in bytes above which bodies are processed on a blocking thread, so that other requests need not
/// wait.
const LARGE: usize = 64 << 10;

/// Memory that a delivery takes while it is read and while its contents wait to be stored, as a multiple
/// of its size: a push of a hundred bytes becomes a work item of six hundred.
const COST: usize = 8;

/// The most bytes that are kept of what is wrong with a push: it names what the payload does.
const WRONG_MAX: usize = 300;

/// When to send a delivery again that found the inbox full.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Time after which a delivery that found no room in the queue should be sent again. The workers need
/// that long to make room.
const RETRY_WHEN_FULL: Duration = Duration::from_mins(1);

/// Error returned when a delivery is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// 401: the delivery is not genuine.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// 400: the header that names the event is missing, empty or too long.
    #[error("the header `{0}` is missing, empty or too long: it names the event")]
    NoEvent(&'static str),
    /// 400: the delivery is from another forge.
    #[error(
        "the headers are those of another forge; send this delivery to `/webhooks/{}`, with a header `{header}` \
         for this endpoint", forge.name()
    )]
    Foreign {
        /// Forge that sent the delivery.
        forge: Forge,
        /// Name of the header that this endpoint requires.
        header: &'static str,
    },
    /// 400: the body is not a payload.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// 503: too many deliveries are waiting already.
    #[error("too many deliveries wait to be stored; send this one again later")]
    Busy {
        /// Time to wait before the delivery is sent again.
        retry_after: Duration,
    },
    /// 503: too many work items of the same repository, owner or server are waiting. Items for which
    /// there was room were accepted.
    #[error(
        "too much of this repository, its owner or its server waits to be read; send this delivery again later"
    )]
    Full {
        /// Time to wait before the delivery is sent again.
        retry_after: Duration,
    },
    /// Usually 503: nothing was changed.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// 500: a task of this program died.
    #[error("reading the delivery failed inside the program")]
    Died,
}

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
    tally: Arc<Tally>,
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
        COST * self.body.len()
    }
}

/// So many sightings of keys of ours are reported before more are gathered. To report them twice does no harm.
const MANY_FOUND: usize = 1_024;

/// What the status shows of a delivery with texts that were cut. `None` if there were none.
fn said_in_log(gathered: &Gathered) -> Option<String> {
    (gathered.malformed > 0).then(|| "some of its texts were cut: the log says which".to_owned())
}

fn not_json(error: &serde_json::Error) -> BodyError {
    BodyError::NotJson {
        line: error.line(),
        column: error.column(),
    }
}

/// What was read of a delivery.
struct Read {
    id: Option<String>,
    gathered: Gathered,
    good: Good,
    /// The name of its repository.
    repository: Option<String>,
    /// Where to go on with its texts, if there was no room for more.
    rest: Option<Rest>,
}

impl Webhook {
    /// Creates a webhook whose deliveries go into the inbox of `parts`.
    pub fn new(
        options: WebhookOptions,
        responder: Responder,
        engine: Arc<Engine>,
        parts: &InboxParts,
    ) -> Self {
        let tally = Arc::new(Tally::new(options.forge, responder.clock().now()));
        let mut places = options.places;
        places.allow_public(options.forge);
        // The task exists until the last inbox is dropped.
        let _ = parts.tallies.send(Arc::clone(&tally));
        Self {
            forge: options.forge,
            verifier: Verifier::new(options.forge, options.secrets),
            places,
            responder,
            engine,
            inbox: parts.inbox.clone(),
            tally,
        }
    }

    /// Returns the forge whose deliveries the webhook receives.
    pub fn forge(&self) -> Forge {
        self.forge
    }

    /// Counts a delivery that was too large to be read.
    pub fn refused_as_too_large(&self) {
        self.tally.refused(Refusal::TooLarge);
    }

    /// Counts a delivery for which there was no room.
    pub fn refused_for_lack_of_room(&self) {
        self.tally.refused(Refusal::Unavailable);
    }

    /// Checks the headers of a delivery before its body is read.
    ///
    /// # Errors
    ///
    /// Returns [`WebhookError::Unverified`] if no body could make the delivery genuine.
    pub fn expects(&self, headers: &HeaderMap) -> Result<(), WebhookError> {
        let expected = self.verifier.expects(headers).map_err(Into::into);
        self.counted(expected)
    }

    /// Verifies the unmodified bytes of a delivery's body.
    ///
    /// # Errors
    ///
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
    /// in the database.
    ///
    /// # Errors
    ///
    /// Returns a [`WebhookError`] if the delivery was not received. It can be repeated in that case.
    pub async fn receive(self: &Arc<Self>, delivery: Proved) -> Result<(), WebhookError> {
        let outcome = match self.read_wholly(delivery).await {
            Ok(read) => self.keep(read).await,
            Err(error) => Err(error),
        };
        self.counted(outcome)
    }

    /// Counts the delivery if it was refused.
    fn counted<T>(&self, outcome: Result<T, WebhookError>) -> Result<T, WebhookError> {
        if let Err(error) = &outcome {
            let loss = match error {
                // Anybody can send such a one.
                WebhookError::Unverified(_) => None,
                WebhookError::NoEvent(_) | WebhookError::Foreign { .. } | WebhookError::Body(_) => {
                    Some(Loss::Unreadable(error.to_string()))
                }
                WebhookError::Full { .. } => Some(Loss::Full),
                WebhookError::Busy { .. } | WebhookError::Store(_) | WebhookError::Died => {
                    Some(Loss::Unavailable)
                }
            };
            if let Some(loss) = loss {
                self.tally.dropped(loss, self.responder.clock().now());
            }
            self.tally.refused(match error {
                WebhookError::Unverified(_) => Refusal::Unproved,
                WebhookError::NoEvent(_) | WebhookError::Foreign { .. } | WebhookError::Body(_) => {
                    Refusal::Unreadable
                }
                WebhookError::Busy { .. }
                | WebhookError::Full { .. }
                | WebhookError::Store(_)
                | WebhookError::Died => Refusal::Unavailable,
            });
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

    /// Reads a delivery, and finds out whose the candidates are as often as there is no room for more: none of ours
    /// is left out because of others.
    async fn read_wholly(self: &Arc<Self>, delivery: Proved) -> Result<Read, WebhookError> {
        let size = delivery.body.len();
        let delivery = Arc::new(delivery);
        let this = Arc::clone(&delivery);
        let read = self.anywhere(size, move |webhook| webhook.read(&this));
        let mut read = read.await?;
        while let Some(from) = read.rest {
            let candidates = &mut read.gathered.candidates;
            let sifted = candidates.sift(self.responder.store()).await;
            sifted.map_err(Arc::new)?;
            if candidates.found() >= MANY_FOUND {
                let found = candidates.take_found();
                let actor = self.forge.source();
                let reported = self.responder.report(found, Reason::Leaked, actor).await;
                reported.map_err(Arc::new)?;
            }
            let this = Arc::clone(&delivery);
            let read_on = self.anywhere(size, move |webhook| webhook.read_on(&this, read, from));
            read = read_on.await?;
        }
        Ok(read)
    }

    /// Goes on with the texts of a delivery.
    fn read_on(&self, delivery: &Proved, read: Read, from: Rest) -> Result<Read, WebhookError> {
        let json = payload::json(&delivery.headers, &delivery.body)?;
        let (source, redactor) = (self.forge.source(), self.responder.redactor());
        let mut found = Gatherer::going_on(source, redactor, &self.engine, read.gathered);
        let rest = found.texts(&json, read.repository.as_deref(), from);
        let rest = rest.map_err(|error| not_json(&error))?;
        let gathered = found.gathered;
        let good = Good {
            malformed: read.good.malformed.or_else(|| said_in_log(&gathered)),
            ..read.good
        };
        Ok(Read {
            gathered,
            good,
            rest,
            ..read
        })
    }

    fn read(&self, Proved { headers, body }: &Proved) -> Result<Read, WebhookError> {
        let now = self.responder.clock().now();
        let event = self.forge.event(headers).map_err(|none| match none {
            NoEvent::Missing(header) => WebhookError::NoEvent(header),
            NoEvent::Foreign(forge) => WebhookError::Foreign {
                forge,
                header: self.forge.event_header(),
            },
        })?;
        let json = payload::json(headers, body)?;
        let fields = payload::fields(&json)?;
        // The identifier is stored, so it must not contain a key.
        let id = self.forge.delivery(headers, body);
        let id = id.filter(|id| !self.responder.redactor().holds_key(id));
        let digest = id.is_none().then(|| hex::encode(Sha256::digest(body)));
        let delivered = Delivered {
            event: &event,
            fields: &fields,
            id: id.as_deref().or(digest.as_deref()).unwrap_or_default(),
            places: &self.places,
        };
        self.gather(&delivered, &json, now)
            .map(|read| Read { id, ..read })
    }

    /// Scans every text of a delivery and records its pushes.
    fn gather(
        &self,
        delivered: &Delivered<'_>,
        json: &[u8],
        now: Timestamp,
    ) -> Result<Read, WebhookError> {
        let source = self.forge.source();
        let redactor = self.responder.redactor();
        let mut found = Gatherer::new(source, redactor, &self.engine, now);
        let repository = ["/repository/full_name", "/project/path_with_namespace"];
        let repository = repository.iter().find_map(|path| delivered.text(path));
        let rest = found
            .texts(json, repository, Rest::default())
            .map_err(|error| not_json(&error))?;
        let meaning = Meaning::of(self.forge, delivered);
        for push in &meaning.pushes {
            found.push(push, Priority::Webhook, now);
        }
        for announced in &meaning.announcements {
            found.announce(announced, Priority::Webhook, now);
        }
        for wrong in &meaning.malformed {
            let wrong = redactor.redact(wrong);
            let repository = repository.map(|name| shorten(redactor, name, REPOSITORY_MAX, false));
            tracing::warn!(
                source,
                forge = self.forge.name(),
                repository,
                delivery = delivered.id,
                %wrong,
                "a delivery tells of a push that cannot be read"
            );
        }
        let gathered = found.gathered;
        let wrong = meaning.malformed.first();
        let wrong = wrong.map(|wrong| shorten(redactor, wrong, WRONG_MAX, false));
        let good = Good {
            unknown: meaning.unknown,
            malformed: wrong.or_else(|| said_in_log(&gathered)),
            is_push: !gathered.items.is_empty(),
            at: now,
        };
        Ok(Read {
            id: None,
            gathered,
            good,
            repository: repository.map(str::to_owned),
            rest,
        })
    }

    async fn keep(&self, read: Read) -> Result<(), WebhookError> {
        let Read {
            id, gathered, good, ..
        } = read;
        let Gathered {
            items, candidates, ..
        } = gathered;
        // Most candidates are not known keys; they are dropped before anything waits for the write lock.
        let store = self.responder.store();
        let sightings = candidates.ours(store).await.map_err(Arc::new)?;
        let sightings = self.responder.clean(sightings);
        drop(candidates);
        if items.is_empty() && sightings.is_empty() {
            self.tally.good(good);
            return Ok(());
        }
        let tally = Arc::clone(&self.tally);
        let taken = self.inbox.take(|answer| Entry {
            tally,
            id,
            items,
            sightings,
            answer,
        });
        match taken.await {
            Ok(Taken::New) => self.tally.good(good),
            Ok(Taken::Repeated) => {
                tracing::debug!(source = self.forge.source(), "a delivery was repeated");
            }
            Ok(Taken::Full) => {
                return Err(WebhookError::Full {
                    retry_after: RETRY_WHEN_FULL,
                });
            }
            Err(NotTaken::Busy) => {
                return Err(WebhookError::Busy {
                    retry_after: RETRY_AFTER,
                });
            }
            Err(NotTaken::Store(error)) => return Err(error.into()),
        }
        Ok(())
    }
}
