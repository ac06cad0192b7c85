//! Messages become work items and sightings, to be committed together.

use std::sync::Arc;

use jiff::Timestamp;

use super::push::{Announcement, Push, Remote};
use super::texts::{Link, scan_texts};
use crate::fetch::ObjectId;
use crate::respond::{Candidates, REPOSITORY_MAX, SharedPlace, URL_MAX, shorten};
use crate::scan::{Engine, Redactor, Scanner};
use crate::store::{NewWorkItem, Place, Priority, WorkKind};

/// The most candidates that are kept of the messages of one poll or one delivery. Real ones hold a few keys.
const MAX_CANDIDATES: usize = 10_000;

/// What the messages of one poll or one delivery amount to.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What is to be fetched.
    pub items: Vec<NewWorkItem>,
    /// What may be keys in the messages themselves: in a text, or in the name of a branch or repository.
    pub candidates: Candidates,
    /// Messages whose texts were scanned.
    pub texts: u64,
    /// Messages that could not be used.
    pub malformed: u64,
}

impl Gathered {
    /// Nothing yet, at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            items: Vec::new(),
            candidates: Candidates::new(now, MAX_CANDIDATES),
            texts: 0,
            malformed: 0,
        }
    }
}

/// Collects what messages amount to.
#[derive(Debug)]
pub struct Gatherer<'a> {
    source: &'a str,
    redactor: &'a Redactor,
    engine: &'a Engine,
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
            gathered: Gathered::new(now),
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

    /// Scans every string of a JSON text. Of more candidates than are kept the rest is left out, and the
    /// message counts as malformed.
    ///
    /// # Errors
    /// What is wrong with the JSON, without quoting it.
    pub fn texts(
        &mut self,
        json: &[u8],
        repository: Option<&str>,
    ) -> Result<(), serde_json::Error> {
        let (source, redactor, engine) = (self.source, self.redactor, self.engine);
        let gathered = &mut self.gathered;
        gathered.texts += 1;
        let shorten = |text: &str, max, cut: bool| {
            let open_end = cut.then(|| engine.longest_match());
            shorten(redactor, text, max, open_end)
        };
        let repository = repository.map(|name| shorten(name, REPOSITORY_MAX, false));
        let candidates = &mut gathered.candidates;
        let mut left_out = 0_u64;
        // Candidates with the same link stand at the same place.
        let mut last: Option<(Option<Arc<Link>>, _)> = None;
        scan_texts(engine, json, |candidate, link| {
            if candidates.is_full() {
                left_out += 1;
                return;
            }
            let known = last.as_ref().filter(|(known, _)| known.as_ref() == link);
            let place = known.map_or_else(
                || {
                    let url = link.map(|link| shorten(&link.text, URL_MAX, link.cut));
                    candidates.place(place(source, repository.clone(), url))
                },
                |(_, place)| *place,
            );
            last = Some((link.cloned(), place));
            candidates.add(candidate.value, place, None);
        })?;
        if left_out > 0 {
            gathered.malformed += 1;
            tracing::warn!(
                source,
                candidates = left_out,
                "a message holds more than is looked up"
            );
        }
        Ok(())
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

    /// Adds an item, unless it cannot be fetched without keeping a key: no address of a repository does without
    /// its name. The key itself was found in the name before.
    fn add(&mut self, item: NewWorkItem, remote: &Remote) {
        let holds_key = |text: &str| self.redactor.holds_key(text);
        if holds_key(&item.repository) || item.clone_url.as_deref().is_some_and(holds_key) {
            let source = self.source;
            let repository = shorten(self.redactor, &item.repository, REPOSITORY_MAX, None);
            tracing::warn!(
                %source, host = remote.host, id = remote.repository_id, repository,
                "a repository has a key in its name; its contents are not read"
            );
            self.gathered.malformed += 1;
            return;
        }
        self.gathered.items.push(item);
    }

    /// Looks for keys in the names of a repository and a reference; gives the repository's name.
    fn names(&mut self, remote: &Remote, reference: &str, commit: Option<ObjectId>) -> String {
        let repository = remote.repository.to_string();
        let mut scanner = Scanner::new(self.engine);
        let candidates = &mut self.gathered.candidates;
        for text in [&repository, reference] {
            let mut shared = None;
            scanner.scan_text(text.as_bytes(), &mut |candidate| {
                let at = *shared.get_or_insert_with(|| {
                    let mut place = place(self.source, Some(repository.clone()), None);
                    let commit = commit.filter(|id| !id.is_null());
                    place.place.commit = commit.map(|commit| commit.to_string());
                    candidates.place(place)
                });
                candidates.add(candidate.value, at, None);
            });
        }
        repository
    }
}

fn place(source: &str, repository: Option<String>, url: Option<String>) -> SharedPlace {
    SharedPlace {
        place: Place {
            source: source.to_owned(),
            url,
            repository,
            commit: None,
            path: None,
            line: None,
        },
        fragment: None,
    }
}
