//! Pushes become work items.

use jiff::Timestamp;

use super::event::Push;
use crate::fetch::ObjectId;
use crate::keyformat::FormatSet;
use crate::respond::{Sighting, redact};
use crate::scan::Engine;
use crate::store::{NewWorkItem, Place, Priority};

/// What the events of one poll amount to.
#[derive(Debug)]
pub(super) struct Items<'a> {
    source: &'a str,
    host: &'a str,
    formats: &'a FormatSet,
    engine: &'a Engine,
    pub(super) new: Vec<NewWorkItem>,
    /// Keys that stand in the name of a branch or a repository.
    pub(super) sightings: Vec<Sighting>,
    /// Events that could not be used.
    pub(super) malformed: u64,
}

impl<'a> Items<'a> {
    pub(super) fn new(
        source: &'a str,
        host: &'a str,
        formats: &'a FormatSet,
        engine: &'a Engine,
    ) -> Self {
        Self {
            source,
            host,
            formats,
            engine,
            new: Vec::new(),
            sightings: Vec::new(),
            malformed: 0,
        }
    }

    /// Adds a push, unless it deleted its reference or changed nothing.
    pub(super) fn add(&mut self, push: &Push, priority: Priority, at: Timestamp, now: Timestamp) {
        let repository = push.repository.to_string();
        self.look_at_names(&repository, &push.reference, push.after, now);
        if push.after.is_null() || push.after == push.before {
            return;
        }
        if redact(self.formats, &repository) != repository {
            // Without its name it cannot be fetched, and with it a key would be kept.
            let source = self.source;
            tracing::warn!(%source, "a repository has a key in its name; its contents are not read");
            self.malformed += 1;
            return;
        }
        self.new.push(NewWorkItem {
            host: self.host.to_owned(),
            repository_id: push.repository_id.to_string(),
            repository,
            ref_name: redact(self.formats, &push.reference).into_owned(),
            before: push.before.to_string(),
            after: push.after.to_string(),
            source: self.source.to_owned(),
            priority,
            event_at: at,
        });
    }

    fn look_at_names(
        &mut self,
        repository: &str,
        reference: &str,
        after: ObjectId,
        now: Timestamp,
    ) {
        for text in [repository, reference] {
            let found = self.engine.scan(text.as_bytes());
            self.sightings
                .extend(found.into_iter().map(|candidate| Sighting {
                    value: candidate.value,
                    place: Place {
                        source: self.source.to_owned(),
                        url: None,
                        repository: Some(repository.to_owned()),
                        commit: (!after.is_null()).then(|| after.to_string()),
                        path: None,
                        line: None,
                    },
                    detected_at: now,
                }));
        }
    }
}
