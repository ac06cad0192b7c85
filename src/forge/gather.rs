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

use super::push::{Announcement, Push, kept_reference};
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
}

impl Gathered {
    /// Creates an empty collection for messages that are read at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            items: Vec::new(),
            candidates: Candidates::new(now, MAX_CANDIDATES),
            texts: 0,
            malformed: 0,
        }
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
    /// Repository of the last push.
    last: Option<Arc<Told>>,
    /// Contents collected so far.
    pub gathered: Gathered,
}

/// Remainder of a message whose preceding candidates have to be looked up first. The default is the whole message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    /// Candidates in front of it.
    passed: usize,
    /// Those among them that were not seen before.
    held: usize,
}

/// The candidates of a message on their way to the others.
struct Taking<'g> {
    message: Arc<Message>,
    candidates: &'g mut Candidates<MessagePlace>,
    /// The places of links that are held, by where they are in memory. Links may take turns.
    places: HashMap<Option<*const Link>, PlaceIndex>,
    taken: Rest,
    left_out: u64,
    cut_links: u64,
    is_full: bool,
}

impl Taking<'_> {
    fn take(&mut self, candidate: Candidate, link: Option<&Arc<Link>>) -> ControlFlow<()> {
        if self.taken.held >= OF_ONE_MESSAGE {
            self.left_out += 1;
            return ControlFlow::Continue(());
        }
        if self.candidates.is_full() {
            self.is_full = true;
            return ControlFlow::Break(());
        }
        let is_first = self.places.is_empty();
        let place = self.places.entry(link.map(Arc::as_ptr)).or_insert_with(|| {
            let repository = self.message.repository.as_ref();
            let names = repository.filter(|_| is_first);
            let length = |text: Option<&Link>| text.map_or(0, |text| text.text.len());
            self.cut_links += u64::from(link.is_some_and(|link| link.cut));
            self.candidates.place(MessagePlace {
                message: Arc::clone(&self.message),
                commit: None,
                link: link.cloned(),
                // The name is there once.
                bytes: size_of::<MessagePlace>() + length(names) + length(link.map(|link| &**link)),
            })
        });
        let is_held = self.candidates.add(candidate.value, *place, None);
        self.taken.passed += 1;
        self.taken.held += usize::from(is_held);
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
        Self::going_on(source, redactor, engine, Gathered::new(now))
    }

    /// Goes on with what was collected before.
    pub fn going_on(
        source: &'a str,
        redactor: &'a Redactor,
        engine: &'a Engine,
        gathered: Gathered,
    ) -> Self {
        Self {
            source,
            redactor,
            engine,
            last: None,
            gathered,
        }
    }

    /// Adds a push that happened at `at`, unless it deleted its reference or changed nothing.
    pub fn push(&mut self, push: &Push, priority: Priority, at: Timestamp) {
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
            let id = shorten(gatherer.redactor, &announced.id, ID_MAX, false);
            (WorkKind::References, String::new(), id)
        });
    }

    /// Scans every string of what is left of a JSON text. Returns the remainder if what is held has to be looked up
    /// first, so that nothing is left out because of others.
    ///
    /// A message with more candidates than are looked up, or longer links than are looked at, is logged and counts as
    /// malformed.
    ///
    /// # Errors
    /// Returns the parser's error, which does not quote the JSON.
    pub fn texts(
        &mut self,
        json: &[u8],
        repository: Option<&str>,
        rest: Rest,
    ) -> Result<Option<Rest>, serde_json::Error> {
        let engine = self.engine;
        self.scan(repository, rest, |from, taking| {
            scan_texts(engine, json, from, |candidate, link| {
                taking.take(candidate, link)
            })
        })
    }

    /// Scans what is left of a text that is no JSON, as [`texts`](Self::texts) does.
    pub fn plain_text(
        &mut self,
        text: &[u8],
        repository: Option<&str>,
        rest: Rest,
    ) -> Option<Rest> {
        let engine = self.engine;
        let scanned: Result<_, Infallible> = self.scan(repository, rest, |from, taking| {
            scan_plain(engine, text, from, |candidate, link| {
                taking.take(candidate, link)
            });
            Ok(())
        });
        let Ok(rest) = scanned;
        rest
    }

    /// Takes the candidates that `scan` finds behind the first ones of a message.
    fn scan<E>(
        &mut self,
        repository: Option<&str>,
        rest: Rest,
        scan: impl FnOnce(usize, &mut Taking<'_>) -> Result<(), E>,
    ) -> Result<Option<Rest>, E> {
        let gathered = &mut self.gathered;
        let mut taking = Taking {
            message: message(self.source, self.redactor, repository),
            candidates: &mut gathered.candidates,
            places: HashMap::new(),
            taken: rest,
            left_out: 0,
            cut_links: 0,
            is_full: false,
        };
        scan(rest.passed, &mut taking)?;
        let Taking {
            taken,
            left_out,
            cut_links,
            is_full,
            ..
        } = taking;
        gathered.texts += u64::from(!is_full);
        if left_out > 0 || cut_links > 0 {
            gathered.malformed += 1;
            tracing::warn!(
                source = self.source,
                candidates = left_out,
                links = cut_links,
                "a message holds more candidates than are looked up, or longer links than are looked at"
            );
        }
        Ok(is_full.then_some(taken))
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
            self.gathered.malformed += 1;
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
            let at = *shared.get_or_insert_with(|| {
                let repository = of.message.repository.as_ref();
                candidates.place(MessagePlace {
                    message: Arc::clone(&of.message),
                    commit: commit.filter(|id| !id.is_null()),
                    link: None,
                    bytes: size_of::<MessagePlace>()
                        + size_of::<Message>()
                        + repository.map_or(0, |name| name.text.len()),
                })
            });
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
