//! Reading a delivery: its texts are scanned, its pushes understood.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::counts::Good;
use super::forges::meaning;
use super::headers::{NoEvent, delivery, event, event_header};
use super::meaning::Delivered;
use super::payload::{Fields, Texts};
use super::places::Wrong;
use super::{MEDIUM, Proved, Webhook, WebhookError, payload};
use crate::forge::{Gathered, Gatherer, Rest};
use crate::offload;
use crate::respond::{REPOSITORY_MAX, shorten};
use crate::store::Priority;

/// The most bytes that are kept of what is wrong with a push: it names what the payload does.
const WRONG_MAX: usize = 300;

/// Returns the words of the status on a delivery with texts that were cut, or `None` if there were none.
fn said_in_log(gathered: &Gathered) -> Option<String> {
    (gathered.malformed > 0).then(|| "some of its texts were cut: the log says which".to_owned())
}

/// Returns the name of the repository that a delivery is about.
fn repository<'d>(delivered: &'d Delivered<'_>) -> Option<&'d str> {
    let paths = ["/repository/full_name", "/project/path_with_namespace"];
    paths.iter().find_map(|path| delivered.text(path))
}

/// Contents of a delivery.
pub(super) struct Read {
    pub(super) id: Option<String>,
    pub(super) gathered: Gathered,
    /// Counts of the delivery, or the reason for which it is refused. Its texts were scanned either way.
    pub(super) outcome: Result<Good, WebhookError>,
    texts: Texts,
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
        let read = self.in_turn(size, move |webhook| webhook.read(delivery));
        let mut read = read.await?;
        while let Some(from) = read.rest {
            let candidates = &mut read.gathered.candidates;
            let sifted = self.responder.sift(candidates, self.forge.source()).await;
            sifted.map_err(Arc::new)?;
            let read_on = self.in_turn(size, move |webhook| webhook.read_on(read, from));
            read = read_on.await?;
        }
        if let Err(error) = &read.outcome {
            let source = self.forge.source();
            let texts = read.texts.kind();
            tracing::warn!(source, %error, texts, "a delivery is refused; its texts were scanned for keys");
        }
        Ok(read)
    }

    /// Scans a body of this size. Those of medium size take turns, of some milliseconds each: dozens of threads would
    /// keep everybody else from the processors. There is room for few larger ones.
    async fn in_turn(
        self: &Arc<Self>,
        size: usize,
        scan: impl FnOnce(&Self) -> Read + Send + 'static,
    ) -> Result<Read, WebhookError> {
        let _turn = if MEDIUM.contains(&size) {
            offload::blocking_turn().await
        } else {
            None
        };
        self.anywhere(size, |webhook| Ok(scan(webhook))).await
    }

    /// Goes on with the texts of a delivery.
    fn read_on(&self, read: Read, from: Rest) -> Read {
        let (source, redactor) = (self.forge.source(), self.responder.redactor());
        let mut found = Gatherer::going_on(source, redactor, &self.engine, read.gathered);
        let rest = read
            .texts
            .scan(&mut found, read.repository.as_deref(), from);
        let gathered = found.gathered;
        let outcome = read.outcome.map(|good| Good {
            malformed: good.malformed.or_else(|| said_in_log(&gathered)),
            ..good
        });
        Read {
            gathered,
            outcome,
            rest,
            ..read
        }
    }

    fn read(&self, Proved { headers, body }: Proved) -> Read {
        let event = event(self.forge, &headers).map_err(|none| match none {
            NoEvent::Missing(header) => WebhookError::NoEvent(header),
            NoEvent::Foreign(forge) => WebhookError::Foreign {
                forge,
                header: event_header(self.forge),
            },
        });
        let digest = hex::encode(Sha256::digest(&body));
        let id = delivery(self.forge, &headers, &digest, self.responder.redactor());
        let (texts, fields) = payload::read(&headers, body);
        let (refused, event, fields) = match (event, fields) {
            (Ok(event), Ok(fields)) => (None, event, fields),
            (Err(refused), fields) => (Some(refused), String::new(), fields.unwrap_or_default()),
            (_, Err(refused)) => (Some(refused.into()), String::new(), Fields::default()),
        };
        let delivered = Delivered {
            event: &event,
            fields: &fields.kept,
            id: id.as_deref().unwrap_or(&digest),
            places: &self.places,
            redactor: self.responder.redactor(),
        };
        let mut read = self.gather(&delivered, texts, refused, fields.left_out);
        read.id = id;
        read
    }

    /// Scans every text of a delivery and, unless it is refused, records its pushes.
    fn gather(
        &self,
        delivered: &Delivered<'_>,
        texts: Texts,
        refused: Option<WebhookError>,
        left_out: Option<&'static str>,
    ) -> Read {
        let now = self.responder.clock().now();
        let (source, redactor) = (self.forge.source(), self.responder.redactor());
        let mut found = Gatherer::new(source, redactor, &self.engine, now);
        let repository = repository(delivered);
        let rest = texts.scan(&mut found, repository, Rest::default());
        let outcome = match refused {
            Some(refused) => Err(refused),
            None => Ok(self.understand(delivered, left_out, &mut found, now)),
        };
        Read {
            id: None,
            gathered: found.gathered,
            outcome,
            texts,
            repository: repository.map(str::to_owned),
            rest,
        }
    }

    /// Records the pushes of a delivery.
    fn understand(
        &self,
        delivered: &Delivered<'_>,
        left_out: Option<&'static str>,
        found: &mut Gatherer<'_>,
        now: Timestamp,
    ) -> Good {
        let (source, redactor) = (self.forge.source(), self.responder.redactor());
        let mut meaning = meaning(self.forge, delivered);
        meaning.malformed.extend(left_out.map(Wrong::Borrowed));
        for push in &meaning.pushes {
            found.push(push, Priority::Webhook, now);
        }
        for announced in &meaning.announcements {
            found.announce(announced, Priority::Webhook, now);
        }
        for wrong in &meaning.malformed {
            let wrong = shorten(redactor, wrong, WRONG_MAX, false);
            let repository = repository(delivered);
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
        let wrong = meaning.malformed.first();
        let wrong = wrong.map(|wrong| shorten(redactor, wrong, WRONG_MAX, false));
        Good {
            unknown: meaning.unknown,
            malformed: wrong.or_else(|| said_in_log(&found.gathered)),
            is_push: !found.gathered.items.is_empty(),
            at: now,
        }
    }
}

impl Texts {
    /// Returns what is scanned, for the log.
    fn kind(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Plain(_) => "plain",
        }
    }

    /// Scans what is left of the texts.
    fn scan(&self, found: &mut Gatherer<'_>, repository: Option<&str>, from: Rest) -> Option<Rest> {
        match self {
            Self::Json(json) => found
                .texts(json, repository, from)
                .unwrap_or_else(|_| found.plain_text(json, repository, from)),
            Self::Plain(text) => found.plain_text(text, repository, from),
        }
    }
}
