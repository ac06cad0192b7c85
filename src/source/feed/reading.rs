//! Reading the pages of a feed, down to events that were read before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::GitHubEvents;
use super::cursor::{Cursor, Seen};
use super::event::Event;
use super::gather::{EventCounts, Taking};
use crate::fetch::Body;
use crate::forge::{Gathered, kept_id};
use crate::github::{Answer, GitHubError, PER_PAGE};
use crate::offload::{apart, block_on};
use crate::respond::LITTLE;
use crate::source::page::{entries, places};
use crate::source::state::Frame;
use crate::source::{PollError, Scope};

/// Number of pages of the feed.
pub(super) const PAGES: u32 = 3;

/// Time after which what was gathered is committed, although more is to be read.
const EARLY: Duration = Duration::from_secs(1);

/// A page, or one of the parts in which a page is requested that is too long as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    number: u32,
    /// Number of parts of each page.
    of: u32,
}

impl Part {
    /// Number of parts in which a page is requested that is too long as a whole.
    const MANY: u32 = 10;

    pub(super) const fn whole(page: u32) -> Self {
        Self {
            number: page,
            of: 1,
        }
    }

    pub(super) fn is_whole(self) -> bool {
        self.of == 1
    }

    /// Returns the parts of a whole page.
    pub(super) fn parts(page: u32) -> impl DoubleEndedIterator<Item = Self> {
        (1..=Self::MANY).map(move |part| Self {
            number: (page - 1) * Self::MANY + part,
            of: Self::MANY,
        })
    }

    /// Returns the page.
    pub(super) fn page(self) -> u32 {
        self.number.div_ceil(self.of)
    }

    /// Returns the number of its events.
    fn full(self) -> usize {
        PER_PAGE / self.of as usize
    }
}

/// A page, or a part of one, that is held to be read again.
pub(super) struct Page {
    pub(super) part: Part,
    pub(super) has_next: bool,
    body: Body,
    /// Places of its events in the body, without the first ones, among which nothing is left to be read. It is parsed
    /// once, however many of them were put aside.
    events: VecDeque<Range<usize>>,
}

impl Page {
    /// Creates a page of these events, which stand in the JSON of `body`.
    pub(super) fn new(
        part: Part,
        has_next: bool,
        body: Body,
        events: VecDeque<Range<usize>>,
    ) -> Self {
        Self {
            part,
            has_next,
            body,
            events,
        }
    }

    /// Returns the JSON of the first event that is left.
    pub(super) fn event(&self) -> Option<&str> {
        let place = self.events.front()?.clone();
        str::from_utf8(self.body.get(place)?).ok()
    }

    /// Goes on to the next event.
    pub(super) fn go_on(&mut self) {
        self.events.pop_front();
    }

    /// Waits until others wait for the memory of the page, for whose sake it should be dropped.
    pub(super) async fn wanted(&self) {
        self.body.wanted().await;
    }
}

/// Numbers of sightings that are written down before what is put aside.
#[derive(Debug, Default)]
struct Written {
    /// Of events that name few keys.
    places: usize,
    /// Of keys that leaked, in other events.
    first: usize,
}

/// Contents that were read in one poll.
pub(super) struct Reading {
    /// Contents that were not committed yet.
    pub(super) gathered: Gathered,
    /// Number of new work items that were committed already.
    pub(super) added: u64,
    /// Names of the events that were put aside.
    pub(super) aside: Vec<String>,
    pub(super) counts: EventCounts,
    /// Numbers of what was not put aside, by repository.
    written: HashMap<String, Written>,
    /// Ids of new events, in the order of the feed, newest first.
    pub(super) ids: Vec<String>,
    known: HashSet<String>,
    /// `true` if an event was read before, and all older ones as well.
    pub(super) overlaps: bool,
    /// `true` if the pages behind such an event are read, too: what the feed shows late may be on them.
    pub(super) is_whole: bool,
    /// Pages that were read: the index of the token, the page number, and the `ETag`.
    pub(super) tags: Vec<(usize, u32, Option<String>)>,
    /// Minimum interval before the next poll, if the server specifies one.
    pub(super) interval: Option<Duration>,
    /// Oldest and newest time among new events.
    pub(super) times: Option<(Timestamp, Timestamp)>,
    /// The last page, if events that were put aside may be on it.
    pub(super) last: Option<Page>,
    /// Error that kept the later pages from being read.
    pub(super) incomplete: Option<PollError>,
    /// Time of the last commit.
    committed_at: Instant,
}

impl Reading {
    fn new(gathered: Gathered, is_whole: bool) -> Self {
        Self {
            is_whole,
            gathered,
            added: 0,
            aside: Vec::new(),
            counts: EventCounts::default(),
            written: HashMap::new(),
            ids: Vec::new(),
            known: HashSet::new(),
            overlaps: false,
            tags: Vec::new(),
            interval: None,
            times: None,
            last: None,
            incomplete: None,
            committed_at: Instant::now(),
        }
    }

    /// Returns whether the next page is worth requesting.
    fn goes_on(&self) -> bool {
        self.is_whole || !self.overlaps
    }

    /// Returns whether an event was not read before, and records that it is read now. Events that arrive between two
    /// requests push others to the next page, and a feed may show an event twice.
    fn is_new(&mut self, event: &Event<'_>, seen: &Seen) -> bool {
        if let Some(id) = &event.id {
            self.overlaps |= seen.is_behind(id);
            if seen.is_behind(id) || seen.is_ahead(id) || !self.known.insert(id.clone()) {
                return false;
            }
            self.ids.push(id.clone());
        }
        if let Some(at) = event.at {
            let (oldest, newest) = self.times.unwrap_or((at, at));
            self.times = Some((oldest.min(at), newest.max(at)));
        }
        true
    }

    /// Commits what was gathered so far.
    async fn commit_early(&mut self, frame: &Frame) -> Result<(), PollError> {
        self.added += frame.commit_early(&mut self.gathered).await?;
        self.committed_at = Instant::now();
        Ok(())
    }
}

/// Returns the name by which an event is found again: its id, or a digest of its text.
pub(super) fn name_of(event: &Event<'_>, json: &str) -> String {
    let digest = || format!("sha256:{}", hex::encode(Sha256::digest(json)));
    event.id.clone().unwrap_or_else(digest)
}

impl GitHubEvents {
    /// Reads pages until one contains an event that was read before, or all of them if it is time for that. What is
    /// little is committed while others are read, and what names many keys is put aside.
    pub(super) async fn read(&self, cursor: &Cursor) -> Result<Reading, PollError> {
        let seen = cursor.seen();
        let is_whole = self.options.scope != Scope::Public && cursor.wants_all(self.frame.now());
        let mut reading = Reading::new(self.frame.gatherer().gathered, is_whole);
        for page in 1..=PAGES {
            let whole = Part::whole(page);
            let read = match self.read_page(whole, cursor, &seen, &mut reading).await {
                Err(PollError::TooMuch(_)) => {
                    self.read_parts(page, cursor, &seen, &mut reading).await
                }
                read => read,
            };
            match read {
                Ok(true) => {}
                Err(error) if page == 1 => return Err(error),
                // 422 is "pagination is limited for this resource": there is no such page.
                Ok(false) | Err(PollError::Api(GitHubError::Refused { status: 422 })) => break,
                Err(error) => {
                    reading.incomplete = Some(error);
                    break;
                }
            }
        }
        Ok(reading)
    }

    /// Reads a page that is too long in parts. Returns whether the next page is worth requesting.
    async fn read_parts(
        &self,
        page: u32,
        cursor: &Cursor,
        seen: &Seen,
        reading: &mut Reading,
    ) -> Result<bool, PollError> {
        for part in Part::parts(page) {
            if !self.read_page(part, cursor, seen, reading).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Requests a page, or a part of one.
    pub(super) async fn request(
        &self,
        part: Part,
        preferred: Option<usize>,
        tag: impl Fn(usize) -> Option<String>,
    ) -> Result<Answer, PollError> {
        let (per_page, number) = (part.full().to_string(), part.number.to_string());
        let path = [&self.options.scope.path()[..], &["events"]].concat();
        let url = self
            .api
            .url(&path, &[("per_page", &per_page), ("page", &number)]);
        Ok(self.api.get(&url, preferred, tag).await?)
    }

    /// Reads a page, or a part of one, into `reading`. Returns whether the next one is worth requesting.
    async fn read_page(
        &self,
        part: Part,
        cursor: &Cursor,
        seen: &Seen,
        reading: &mut Reading,
    ) -> Result<bool, PollError> {
        let page = part.page();
        let tag = |token| {
            let known = cursor.etag(token, page).filter(|_| part.is_whole());
            known.map(str::to_owned)
        };
        let preferred = reading.tags.last().map(|(token, ..)| *token);
        let mut answer = self.request(part, preferred, tag).await?;
        if part.number == 1 {
            reading.interval = answer.interval;
        }
        let Some(mut body) = answer.body.take() else {
            // An `ETag` is stored only once everything behind the page was read.
            reading.overlaps = true;
            return Ok(reading.goes_on());
        };
        let text = apart(body.len(), || body.json());
        let events = apart(text.len(), || entries(text))?;
        for event in &events {
            self.take(event.get(), seen, reading).await?;
            // Many small events take long together.
            tokio::task::yield_now().await;
        }
        let has_next = part.has_next(&answer, events.len());
        if part.is_whole() {
            // One with a key is not kept, and the page is read anew.
            let redactor = self.frame.parts.responder.redactor();
            let etag = answer.etag.clone();
            let etag = etag.filter(|etag| !redactor.holds_key(etag));
            reading.tags.push((answer.token, page, etag));
        }
        let goes_on = reading.goes_on() && has_next;
        if goes_on {
            drop(body);
            // The next one may be slow to come.
            reading.commit_early(&self.frame).await?;
        } else if !reading.aside.is_empty() || !cursor.aside.is_empty() {
            let events = places(text, &events);
            reading.last = Some(Page::new(part, has_next, body, events));
        }
        Ok(goes_on)
    }

    /// Parses an event. Its id is kept in the cursor.
    pub(super) fn event<'e>(&self, json: &'e str) -> Event<'e> {
        let mut event = Event::read(json, &self.options.host);
        let redactor = self.frame.parts.responder.redactor();
        event.id = event.id.map(|id| kept_id(redactor, &id));
        event
    }

    /// Returns the options for converting the events of this feed.
    pub(super) fn taking(&self) -> Taking {
        Taking {
            priority: self.options.scope.priority(),
            forks: self.options.scope != Scope::Public,
            now: self.frame.now(),
        }
    }

    /// Takes an event, unless it was read before. If its texts name many keys of ours, or those of its repository do in
    /// all, they are put aside: whoever owns these can have hundreds of such events on a page, and to write them down
    /// takes minutes. What leaked is not, in the first place where it did.
    async fn take(&self, json: &str, seen: &Seen, reading: &mut Reading) -> Result<(), PollError> {
        let size = json.len();
        let event = apart(size, || self.event(json));
        if !reading.is_new(&event, seen) {
            return Ok(());
        }
        let mut gatherer = self.frame.gatherer();
        let counts = &mut reading.counts;
        apart(size, || {
            counts.announce(&event, &mut gatherer, self.taking());
        });
        let malformed = gatherer.gathered.malformed;
        let mut is_many = false;
        let look_up = |gathered: &mut Gathered| {
            let candidates = &mut gathered.candidates;
            if block_on(self.frame.retain_ours(candidates))? > LITTLE {
                is_many = true;
                block_on(self.frame.retain_first(candidates, LITTLE))?;
            }
            Ok::<_, PollError>(())
        };
        apart(size, || counts.texts(&event, &mut gatherer, look_up))?;
        let repository = event.repository.as_ref().map(ToString::to_string);
        let written = reading.written.entry(repository.unwrap_or_default());
        let written = written.or_default();
        let candidates = &mut gatherer.gathered.candidates;
        if !is_many && candidates.len() + written.places > LITTLE {
            is_many = self.frame.retain_ours(candidates).await? + written.places > LITTLE;
        }
        if is_many {
            reading.aside.push(name_of(&event, json));
            // They are counted when they are read again.
            gatherer.gathered.texts = 0;
            gatherer.gathered.malformed = malformed;
            let left = LITTLE.saturating_sub(written.first);
            self.frame.retain_first(candidates, left).await?;
            written.first += candidates.len();
        } else {
            written.places += candidates.len();
        }
        reading.gathered.add(gatherer.gathered);
        let is_due = reading.committed_at.elapsed() >= EARLY;
        if is_due || Frame::has_many(&reading.gathered) {
            reading.commit_early(&self.frame).await?;
        }
        Ok(())
    }
}

impl Part {
    /// Returns whether another page, or part, follows this one, which has `count` events.
    pub(super) fn has_next(self, answer: &Answer, count: usize) -> bool {
        answer.has_next(count, self.full())
    }
}
