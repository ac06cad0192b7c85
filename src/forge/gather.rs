//! Converts messages to work items and candidates, which are committed together: the candidates as sightings, once they
//! are known to be ours.

#[cfg(test)]
mod tests;
mod told;

use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use super::push::{Announcement, Push, kept_id, kept_reference};
use super::texts::{Link, scan_plain, scan_texts};
use crate::fetch::ObjectId;
use crate::respond::{
    Candidates, PlaceIndex, Placed, REPOSITORY_MAX, SharedPlace, URL_MAX, shorten,
};
use crate::scan::{Candidate, Engine, Redactor, Scanner};
use crate::store::{Place, Priority, WorkKind};
use told::Told;
pub use told::ToldItem;

/// The most candidates that are held before they are looked up.
const MAX_CANDIDATES: usize = 10_000;

/// The most candidates of one message that are looked up. Real ones hold a few keys.
const OF_ONE_MESSAGE: usize = 100_000;

/// Maximum length of a host and of the identifier of an announcement, in bytes.
const ID_MAX: usize = 512;

/// Result of reading the messages of one poll or one delivery.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Work items to be fetched.
    pub items: Vec<ToldItem>,
    /// Possible keys in the messages themselves: in a text, or in the name of a branch or repository.
    pub candidates: Candidates<MessagePlace>,
    /// Messages whose texts were scanned.
    pub texts: u64,
    /// Messages that could not be used, or not all of them.
    pub malformed: u64,
    /// Reason for the last of those, in words that quote nothing.
    pub wrong: Option<&'static str>,
}

impl Gathered {
    /// Creates an empty collection for messages that are read at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self::with_room(now, MAX_CANDIDATES)
    }

    /// Creates an empty collection that is full at about `room` candidates.
    pub fn with_room(now: Timestamp, room: usize) -> Self {
        Self {
            items: Vec::new(),
            candidates: Candidates::new(now, room),
            texts: 0,
            malformed: 0,
            wrong: None,
        }
    }

    /// Counts a message that cannot be used, or not all of it, for this reason, which quotes nothing.
    pub fn malformed(&mut self, wrong: &'static str) {
        self.malformed += 1;
        self.wrong = Some(wrong);
    }

    /// Returns the memory that the work items take, in bytes.
    pub fn item_bytes(&self) -> usize {
        self.items.iter().map(ToldItem::bytes).sum()
    }

    /// Adds what was gathered of a message. Its candidates were not looked up, or only ours are left.
    pub fn add(&mut self, other: Self) {
        let Self {
            mut items,
            candidates,
            texts,
            malformed,
            wrong,
        } = other;
        self.items.append(&mut items);
        self.candidates.append(candidates);
        self.texts += texts;
        self.malformed += malformed;
        self.wrong = wrong.or(self.wrong);
    }
}

/// A place in a message, or in a name. Whoever writes it chooses how many candidates there are and how long it takes
/// to read their links in every encoding, so that is done only for what turns out to be a key of ours.
#[derive(Debug)]
pub struct MessagePlace {
    message: Arc<Message>,
    commit: Option<ObjectId>,
    link: Option<Arc<Link>>,
    bytes: usize,
}

/// Data shared by all places in a message.
#[derive(Debug)]
struct Message {
    source: String,
    redactor: Redactor,
    repository: Option<Link>,
    /// Stored form of the repository's name, computed on first use.
    kept: OnceLock<Option<String>>,
}

impl Message {
    /// Returns what is kept of the repository's name. All places share it, so it is searched for keys once.
    fn repository(&self) -> Option<String> {
        let kept = |name: &Link| shorten(&self.redactor, &name.text, REPOSITORY_MAX, name.cut);
        let kept = self.kept.get_or_init(|| self.repository.as_ref().map(kept));
        kept.clone()
    }
}

impl Placed for MessagePlace {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn source(&self) -> &str {
        &self.message.source
    }

    fn to_shared(&self) -> SharedPlace {
        let Message {
            source, redactor, ..
        } = &*self.message;
        let kept = |link: &Link| shorten(redactor, &link.text, URL_MAX, link.cut);
        SharedPlace {
            place: Place {
                source: source.clone(),
                url: self.link.as_deref().map(kept),
                repository: self.message.repository(),
                commit: self.commit.map(|commit| commit.to_string()),
                path: None,
                line: None,
            },
            fragment: None,
        }
    }
}

/// Collects what messages amount to.
#[derive(Debug)]
pub struct Gatherer<'a> {
    source: &'a str,
    redactor: &'a Redactor,
    engine: &'a Engine,
    /// The most candidates of one message that are looked up.
    of_one_message: usize,
    /// Repository of the last push.
    last: Option<Arc<Told>>,
    /// Contents collected so far.
    pub gathered: Gathered,
}

/// The candidates of a message on their way to the others.
struct Taking<'g, L, E> {
    message: Arc<Message>,
    gathered: &'g mut Gathered,
    /// Looks up the candidates that are held, so that there is room for more.
    look_up: L,
    looked_up: Result<(), E>,
    /// The places of links that are held, by where they are in memory. Links may take turns.
    places: HashMap<Option<*const Link>, PlaceIndex>,
    /// Candidates that may still be looked up.
    left: usize,
    left_out: u64,
    cut_links: u64,
}

impl<L: FnMut(&mut Gathered) -> Result<(), E>, E> Taking<'_, L, E> {
    fn take(&mut self, candidate: Candidate, link: Option<&Arc<Link>>) -> ControlFlow<()> {
        if self.left == 0 {
            self.left_out += 1;
            return ControlFlow::Continue(());
        }
        if self.gathered.candidates.is_full() {
            self.places.clear();
            self.looked_up = (self.look_up)(self.gathered);
            if self.looked_up.is_err() {
                return ControlFlow::Break(());
            }
        }
        let place = |candidates: &mut Candidates<MessagePlace>| {
            let is_first = self.places.is_empty();
            let place = self.places.entry(link.map(Arc::as_ptr));
            *place.or_insert_with(|| {
                let repository = self.message.repository.as_ref();
                let names = repository.filter(|_| is_first);
                let length = |text: Option<&Link>| text.map_or(0, |text| text.text.len());
                self.cut_links += u64::from(link.is_some_and(|link| link.cut));
                candidates.place(MessagePlace {
                    message: Arc::clone(&self.message),
                    commit: None,
                    link: link.cloned(),
                    // The name is there once.
                    bytes: size_of::<MessagePlace>()
                        + length(names)
                        + length(link.map(|link| &**link)),
                })
            })
        };
        let is_held = self.gathered.candidates.add(candidate.value, place, None);
        self.left -= usize::from(is_held);
        ControlFlow::Continue(())
    }
}

impl<'a> Gatherer<'a> {
    /// Creates a collector on behalf of `source`, whose findings are dated `now`.
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
            of_one_message: OF_ONE_MESSAGE,
            last: None,
            gathered: Gathered::new(now),
        }
    }

    /// Adds a push that happened at `at`, unless it deleted its reference or changed nothing.
    ///
    /// One whose commits are named by keys, of a format that consists of digits, is logged and counts as malformed: the
    /// keys would be stored with it, and nothing could be fetched by their digests.
    pub fn push(&mut self, push: &Push, priority: Priority, at: Timestamp) {
        let is_key = |id: &ObjectId| !id.is_null() && self.redactor.holds_key(id.to_string());
        if is_key(&push.before) || is_key(&push.after) {
            self.gathered
                .malformed("a push has a key in place of a commit");
            tracing::warn!(
                source = self.source,
                host = push.remote.host,
                "a push has a key in place of a commit; its contents are not read"
            );
            let told = self.told(&push.remote, None);
            self.name(&told, &push.reference, None);
            return;
        }
        let told = self.told(&push.remote, Some(push.after));
        self.name(&told, &push.reference, Some(push.after));
        if push.after.is_null() || push.after == push.before {
            return;
        }
        self.add(&told, &push.reference, (priority, at), |_| {
            let (before, after) = (push.before.to_string(), push.after.to_string());
            (WorkKind::Range, before, after)
        });
    }

    /// Adds branches and tags whose commits have to be requested.
    pub fn announce(&mut self, announced: &Announcement, priority: Priority, at: Timestamp) {
        let reference = announced.reference.as_deref().unwrap_or_default();
        let told = self.told(&Arc::new(announced.remote.clone()), None);
        self.name(&told, reference, None);
        self.add(&told, reference, (priority, at), |gatherer| {
            let id = kept_id(gatherer.redactor, &announced.id);
            let id = shorten(gatherer.redactor, &id, ID_MAX, false);
            (WorkKind::References, String::new(), id)
        });
    }

    /// Scans every string of a JSON text, in one go: as often as there is no room for more candidates, `look_up` looks
    /// up those that are held, or hands them over, so that nothing is left out because of others.
    ///
    /// A message with more candidates than are looked up, or longer links than are looked at, is logged and counts as
    /// malformed.
    ///
    /// # Errors
    /// Returns the parser's error, which does not quote the JSON. The inner error is that of `look_up`, which ends the
    /// scan.
    pub fn texts<E>(
        &mut self,
        json: &[u8],
        repository: Option<&str>,
        look_up: impl FnMut(&mut Gathered) -> Result<(), E>,
    ) -> Result<Result<(), E>, serde_json::Error> {
        let engine = self.engine;
        self.scan(repository, look_up, |taking| {
            scan_texts(engine, json, |candidate, link| taking.take(candidate, link))
        })
    }

    /// Scans a text that is no JSON, as [`texts`](Self::texts) does.
    ///
    /// # Errors
    /// Returns the error of `look_up`.
    pub fn plain_text<E>(
        &mut self,
        text: &[u8],
        repository: Option<&str>,
        look_up: impl FnMut(&mut Gathered) -> Result<(), E>,
    ) -> Result<(), E> {
        let engine = self.engine;
        let Ok(looked_up) = self.scan(repository, look_up, |taking| -> Result<(), Infallible> {
            scan_plain(engine, text, |candidate, link| taking.take(candidate, link));
            Ok(())
        });
        looked_up
    }

    /// Takes the candidates that `scan` finds in a message.
    fn scan<L: FnMut(&mut Gathered) -> Result<(), E>, E, F>(
        &mut self,
        repository: Option<&str>,
        look_up: L,
        scan: impl FnOnce(&mut Taking<'_, L, E>) -> Result<(), F>,
    ) -> Result<Result<(), E>, F> {
        let mut taking = Taking {
            message: message(self.source, self.redactor, repository),
            gathered: &mut self.gathered,
            look_up,
            looked_up: Ok(()),
            places: HashMap::new(),
            left: self.of_one_message,
            left_out: 0,
            cut_links: 0,
        };
        scan(&mut taking)?;
        let Taking {
            gathered,
            looked_up,
            left_out,
            cut_links,
            ..
        } = taking;
        gathered.texts += u64::from(looked_up.is_ok());
        if left_out > 0 || cut_links > 0 {
            gathered.malformed(
                "a message holds more candidates than are looked up, or longer links than are looked at",
            );
            tracing::warn!(
                source = self.source,
                candidates = left_out,
                links = cut_links,
                "a message holds more candidates than are looked up, or longer links than are looked at"
            );
        }
        Ok(looked_up)
    }

    /// Adds an item, unless its repository is not to be fetched.
    fn add(
        &mut self,
        of: &Told,
        reference: &str,
        (priority, event_at): (Priority, Timestamp),
        range: impl FnOnce(&Self) -> (WorkKind, String, String),
    ) {
        let Some(repository) = of.repository.clone() else {
            self.gathered
                .malformed("the name of a repository is too long, or holds a key");
            return;
        };
        let (kind, before, after) = range(self);
        self.gathered.items.push(ToldItem {
            repository,
            kind,
            ref_name: kept_reference(self.redactor, reference),
            before,
            after,
            priority,
            event_at,
        });
    }

    /// Scans the name of a repository, or of a reference in it, for keys.
    fn name(&mut self, of: &Told, name: &str, commit: Option<ObjectId>) {
        let candidates = &mut self.gathered.candidates;
        let mut shared = None;
        Scanner::new(self.engine).scan_text(name.as_bytes(), &mut |candidate| {
            let at = |candidates: &mut Candidates<_>| {
                *shared.get_or_insert_with(|| {
                    let repository = of.message.repository.as_ref();
                    candidates.place(MessagePlace {
                        message: Arc::clone(&of.message),
                        commit: commit.filter(|id| !id.is_null()),
                        link: None,
                        bytes: size_of::<MessagePlace>()
                            + size_of::<Message>()
                            + repository.map_or(0, |name| name.text.len()),
                    })
                })
            };
            candidates.add(candidate.value, at, None);
        });
    }
}

fn message(source: &str, redactor: &Redactor, repository: Option<&str>) -> Arc<Message> {
    Arc::new(Message {
        source: source.to_owned(),
        redactor: redactor.clone(),
        repository: repository.map(Link::of),
        kept: OnceLock::new(),
    })
}
