//! Reading a delivery: its texts are scanned, its pushes understood.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::counts::Good;
use super::forges::meaning;
use super::headers::{NoEvent, delivery, event, event_header};
use super::meaning::Delivered;
use super::{BodyError, Proved, Webhook, WebhookError, payload};
use crate::forge::{Gathered, Gatherer, Rest};
use crate::respond::{REPOSITORY_MAX, shorten};
use crate::store::{Priority, Reason};

/// The most bytes that are kept of what is wrong with a push: it names what the payload does.
const WRONG_MAX: usize = 300;

/// Number of sightings of keys of ours that are reported before more are gathered. Reporting them twice is harmless.
pub(super) const MANY_FOUND: usize = 1_024;

/// Returns the words of the status on a delivery with texts that were cut, or `None` if there were none.
fn said_in_log(gathered: &Gathered) -> Option<String> {
    (gathered.malformed > 0).then(|| "some of its texts were cut: the log says which".to_owned())
}

fn not_json(error: &serde_json::Error) -> BodyError {
    BodyError::NotJson {
        line: error.line(),
        column: error.column(),
    }
}

/// Contents of a delivery.
pub(super) struct Read {
    pub(super) id: Option<String>,
    pub(super) gathered: Gathered,
    pub(super) good: Good,
    /// Name of the repository.
    repository: Option<String>,
    /// The rest of its texts, for which there was no room.
    rest: Option<Rest>,
}

impl Webhook {
    /// Reads a delivery, and finds out whose the candidates are as often as there is no room for more: none of ours
    /// is left out because of others.
    pub(super) async fn read_wholly(
        self: &Arc<Self>,
        delivery: Proved,
    ) -> Result<Read, WebhookError> {
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
                let reported = self.responder.report_clean(found, Reason::Leaked, actor);
                reported.await.map_err(Arc::new)?;
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
        let event = event(self.forge, headers).map_err(|none| match none {
            NoEvent::Missing(header) => WebhookError::NoEvent(header),
            NoEvent::Foreign(forge) => WebhookError::Foreign {
                forge,
                header: event_header(self.forge),
            },
        })?;
        let json = payload::json(headers, body)?;
        let fields = payload::fields(&json)?;
        // The identifier is stored, so it must not contain a key.
        let id = delivery(self.forge, headers, body);
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
        let meaning = meaning(self.forge, delivered);
        for push in &meaning.pushes {
            found.push(push, Priority::Webhook, now);
        }
        for announced in &meaning.announcements {
            found.announce(announced, Priority::Webhook, now);
        }
        for wrong in &meaning.malformed {
            let wrong = shorten(redactor, wrong, WRONG_MAX, false);
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
}
