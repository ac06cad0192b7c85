//! Messages become work items and sightings, to be committed together.

use jiff::Timestamp;

use super::push::{Announcement, Push, Remote};
use super::texts::scan_texts;
use crate::fetch::ObjectId;
use crate::respond::Sighting;
use crate::scan::{Candidate, Engine, Redactor};
use crate::store::{NewWorkItem, Place, Priority, WorkKind};

/// What the messages of one poll or one delivery amount to.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What is to be fetched.
    pub items: Vec<NewWorkItem>,
    /// Keys that stand in the messages themselves: in a text, or in the name of a branch or repository.
    pub sightings: Vec<Sighting>,
    /// Messages whose texts were scanned.
    pub texts: u64,
    /// Messages that could not be used.
    pub malformed: u64,
}

impl Gathered {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.sightings.is_empty()
    }
}

/// Collects what messages amount to.
#[derive(Debug)]
pub struct Gatherer<'a> {
    source: &'a str,
    redactor: &'a Redactor,
    engine: &'a Engine,
    now: Timestamp,
    /// What was collected so far.
    pub gathered: Gathered,
}

impl<'a> Gatherer<'a> {
    /// Collects in the name of `source`; what is found was found at `now`.
    pub fn new(
        source: &'a str,
        redactor: &'a Redactor,
        engine: &'a Engine,
        now: Timestamp,
    ) -> Self {
        Self {
            source,
            redactor,
            engine,
            now,
            gathered: Gathered::default(),
        }
    }

    /// Adds a push that happened at `at`, unless it deleted its reference or changed nothing.
    pub fn push(&mut self, push: &Push, priority: Priority, at: Timestamp) {
        let repository = self.names(&push.remote, &push.reference, Some(push.after));
        if push.after.is_null() || push.after == push.before {
            return;
        }
        let item = NewWorkItem {
            kind: WorkKind::Range,
            before: push.before.to_string(),
            after: push.after.to_string(),
            ..self.item(&push.remote, repository, &push.reference, priority, at)
        };
        self.add(item, &push.remote);
    }

    /// Adds branches and tags whose commits are to be asked for.
    pub fn announce(&mut self, announced: &Announcement, priority: Priority, at: Timestamp) {
        let reference = announced.reference.as_deref().unwrap_or_default();
        let repository = self.names(&announced.remote, reference, None);
        let item = NewWorkItem {
            after: self.redactor.redact(&announced.id).into_owned(),
            ..self.item(&announced.remote, repository, reference, priority, at)
        };
        self.add(item, &announced.remote);
    }

    /// Scans every string of a JSON text.
    ///
    /// # Errors
    /// What is wrong with the JSON, without quoting it.
    pub fn texts(
        &mut self,
        json: &[u8],
        repository: Option<&str>,
    ) -> Result<(), serde_json::Error> {
        let Self {
            source,
            engine,
            now,
            gathered,
            ..
        } = self;
        gathered.texts += 1;
        scan_texts(engine, json, |candidate, link| {
            let place = place(source, repository, link);
            gathered.sightings.push(sighting(candidate, place, *now));
        })
    }

    fn item(
        &self,
        remote: &Remote,
        repository: String,
        reference: &str,
        priority: Priority,
        at: Timestamp,
    ) -> NewWorkItem {
        NewWorkItem {
            kind: WorkKind::References,
            host: remote.host.clone(),
            repository_id: remote.repository_id.clone(),
            repository,
            clone_url: remote.clone_url.as_ref().map(ToString::to_string),
            ref_name: self.redactor.redact(reference).into_owned(),
            before: String::new(),
            after: String::new(),
            source: self.source.to_owned(),
            priority,
            event_at: at,
        }
    }

    /// Adds an item, unless it cannot be fetched without keeping a key.
    fn add(&mut self, item: NewWorkItem, remote: &Remote) {
        let holds_key = |text: &str| self.redactor.holds_key(text);
        if holds_key(&item.repository) || item.clone_url.as_deref().is_some_and(holds_key) {
            let source = self.source;
            tracing::warn!(%source, host = remote.host, "a repository has a key in its name; its contents are not read");
            self.gathered.malformed += 1;
            return;
        }
        self.gathered.items.push(item);
    }

    /// Looks for keys in the names of a repository and a reference; gives the repository's name.
    fn names(&mut self, remote: &Remote, reference: &str, commit: Option<ObjectId>) -> String {
        let repository = remote.repository.to_string();
        for text in [&repository, reference] {
            for candidate in self.engine.scan(text.as_bytes()) {
                let place = Place {
                    commit: commit
                        .filter(|id| !id.is_null())
                        .map(|commit| commit.to_string()),
                    ..place(self.source, Some(&repository), None)
                };
                let sighting = sighting(candidate, place, self.now);
                self.gathered.sightings.push(sighting);
            }
        }
        repository
    }
}

fn place(source: &str, repository: Option<&str>, link: Option<&str>) -> Place {
    Place {
        source: source.to_owned(),
        url: link.map(str::to_owned),
        repository: repository.map(str::to_owned),
        commit: None,
        path: None,
        line: None,
    }
}

fn sighting(candidate: Candidate, place: Place, detected_at: Timestamp) -> Sighting {
    Sighting {
        value: candidate.value,
        place,
        detected_at,
    }
}
