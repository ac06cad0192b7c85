//! Reading a delivery: its texts are scanned, its pushes understood.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::counts::Good;
use super::forges::meaning;
use super::headers::{NoEvent, delivery, event, event_header};
use super::many::Early;
use super::meaning::Delivered;
use super::payload::{Fields, Texts};
use super::places::Wrong;
use super::{BodyError, MEDIUM, Proved, Webhook, WebhookError, payload};
use crate::forge::{Forge, Gathered, Gatherer};
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

/// Returns whether an event is a test, which Bitbucket Data Center sends without a body.
fn is_test(forge: Forge, event: &str) -> bool {
    forge == Forge::Bitbucket && event == "diagnostics:ping"
}

/// Contents of a delivery.
pub(super) struct Read {
    pub(super) id: Option<String>,
    pub(super) gathered: Gathered,
    pub(super) early: Early,
    /// Counts of the delivery, or the reason for which it is refused. Its texts were scanned either way.
    pub(super) outcome: Result<Good, WebhookError>,
}

impl Webhook {
    /// Reads a delivery. Those of medium size take turns, of some milliseconds each: dozens of threads would keep
    /// everybody else from the processors. There is room for few larger ones.
    pub(super) async fn read_in_turn(
        self: &Arc<Self>,
        delivery: Proved,
    ) -> Result<Read, WebhookError> {
        let size = delivery.body.len();
        let _turn = if MEDIUM.contains(&size) {
            offload::blocking_turn().await
        } else {
            None
        };
        self.anywhere(size, |webhook| webhook.read(delivery)).await
    }

    /// Reads a delivery, and finds out whose the candidates are as often as there is no room for more: none of ours
    /// is left out because of others.
    fn read(&self, Proved { headers, body }: Proved) -> Result<Read, WebhookError> {
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
        let is_test = event.as_ref().is_ok_and(|event| is_test(self.forge, event));
        let fields = match fields {
            Err(BodyError::Empty) if is_test => Ok(Fields::default()),
            fields => fields,
        };
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
        let now = self.responder.clock().now();
        let (source, redactor) = (self.forge.source(), self.responder.redactor());
        let mut found = Gatherer::new(source, redactor, &self.engine, now);
        // What was pushed goes before the keys in the texts, if these are many.
        let mut outcome = match refused {
            Some(error) => Err(error),
            None => Ok(self.understand(&delivered, fields.left_out, &mut found, now)),
        };
        let mut early = Early::default();
        let look_up =
            |gathered: &mut Gathered| offload::block_on(self.make_room(gathered, &mut early));
        texts.scan(&mut found, repository(&delivered), look_up)?;
        match &mut outcome {
            Ok(good) if good.malformed.is_none() => good.malformed = said_in_log(&found.gathered),
            Ok(_) => {}
            Err(error) => {
                let texts = texts.kind();
                tracing::warn!(source, %error, texts, "a delivery is refused; its texts were scanned for keys");
            }
        }
        Ok(Read {
            id,
            gathered: found.gathered,
            early,
            outcome,
        })
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
            malformed: wrong,
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

    /// Scans the texts.
    fn scan(
        &self,
        found: &mut Gatherer<'_>,
        repository: Option<&str>,
        mut look_up: impl FnMut(&mut Gathered) -> Result<(), WebhookError>,
    ) -> Result<(), WebhookError> {
        match self {
            Self::Json(json) => found
                .texts(json, repository, &mut look_up)
                .unwrap_or_else(|_| found.plain_text(json, repository, look_up)),
            Self::Plain(text) => found.plain_text(text, repository, look_up),
        }
    }
}
