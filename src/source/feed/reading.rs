//! Reading the pages of a feed, down to events that were read before.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::GitHubEvents;
use super::cursor::{Cursor, Seen};
use super::event::Event;
use super::gather::{EventCounts, Taking};
use crate::forge::{Gatherer, Rest};
use crate::github::PER_PAGE;
use crate::offload::apart;
use crate::source::page::entries;
use crate::source::{PollError, Scope};

/// Number of pages of the feed.
pub(super) const PAGES: u32 = 3;

/// Number of parts in which a page is requested that is too long as a whole.
const PARTS: u32 = 10;

/// Contents that were read in one poll.
pub(super) struct Reading<'k> {
    pub(super) gatherer: Gatherer<'k>,
    pub(super) counts: EventCounts,
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
    /// Error that kept the later pages from being read.
    pub(super) incomplete: Option<PollError>,
}

impl<'k> Reading<'k> {
    fn new(gatherer: Gatherer<'k>, is_whole: bool) -> Self {
        Self {
            is_whole,
            gatherer,
            counts: EventCounts::default(),
            ids: Vec::new(),
            known: HashSet::new(),
            overlaps: false,
            tags: Vec::new(),
            interval: None,
            times: None,
            incomplete: None,
        }
    }

    /// Returns whether the next page is worth requesting.
    fn goes_on(&self) -> bool {
        self.is_whole || !self.overlaps
    }

    /// Takes an event unless it was read before. Events that arrive between two requests push others to the next page,
    /// and a feed may show an event twice.
    fn take(&mut self, event: &Event<'_>, seen: &Seen, taking: Taking) -> Option<Rest> {
        if let Some(id) = &event.id {
            self.overlaps |= seen.is_behind(id);
            if seen.is_behind(id) || seen.is_ahead(id) || !self.known.insert(id.clone()) {
                return None;
            }
            self.ids.push(id.clone());
        }
        if let Some(at) = event.at {
            let (oldest, newest) = self.times.unwrap_or((at, at));
            self.times = Some((oldest.min(at), newest.max(at)));
        }
        self.counts.take(event, &mut self.gatherer, taking)
    }
}

impl GitHubEvents {
    /// Reads pages until one contains an event that was read before, or all of them if it is time for that.
    pub(super) async fn read(&self, cursor: &Cursor) -> Result<Reading<'_>, PollError> {
        let seen = cursor.seen();
        let is_whole = self.options.scope != Scope::Public && cursor.wants_all(self.frame.now());
        let mut reading = Reading::new(self.frame.gatherer(), is_whole);
        for page in 1..=PAGES {
            let read = match self.read_page(page, 1, cursor, &seen, &mut reading).await {
                Err(PollError::TooMuch(_)) => {
                    self.read_parts(page, cursor, &seen, &mut reading).await
                }
                read => read,
            };
            match read {
                Ok(true) => {}
                Err(error) if page == 1 => return Err(error),
                // 422 is "pagination is limited for this resource": there is no such page.
                Ok(false) | Err(PollError::Refused { status: 422 }) => break,
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
        reading: &mut Reading<'_>,
    ) -> Result<bool, PollError> {
        for part in 1..=PARTS {
            let number = (page - 1) * PARTS + part;
            if !self.read_page(number, PARTS, cursor, seen, reading).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads one page into `reading`, or one of so many `parts` of pages. Returns whether the next one is worth
    /// requesting.
    async fn read_page(
        &self,
        page: u32,
        parts: u32,
        cursor: &Cursor,
        seen: &Seen,
        reading: &mut Reading<'_>,
    ) -> Result<bool, PollError> {
        let full = PER_PAGE / parts as usize;
        let (per_page, number) = (full.to_string(), page.to_string());
        let path = [&self.options.scope.path()[..], &["events"]].concat();
        let url = self
            .api
            .url(&path, &[("per_page", &per_page), ("page", &number)]);
        let is_whole = parts == 1;
        let tag = |token| {
            let known = cursor.etag(token, page).filter(|_| is_whole);
            known.map(str::to_owned)
        };
        let preferred = reading.tags.last().map(|(token, ..)| *token);
        let mut answer = self.api.get(&url, preferred, tag).await?;
        if page == 1 {
            reading.interval = answer.interval;
        }
        let Some(body) = &mut answer.body else {
            // An `ETag` is stored only once everything behind the page was read.
            reading.overlaps = true;
            return Ok(reading.goes_on());
        };
        let text = apart(body.len(), || body.json());
        let events = apart(text.len(), || entries(text))?;
        let taking = Taking {
            priority: self.options.scope.priority(),
            forks: self.options.scope != Scope::Public,
            now: self.frame.now(),
        };
        for event in &events {
            let size = event.get().len();
            let event = apart(size, || Event::read(event.get(), &self.options.host));
            let mut rest = apart(size, || reading.take(&event, seen, taking));
            while let Some(from) = rest {
                self.frame.sift(&mut reading.gatherer.gathered).await?;
                rest = apart(size, || {
                    reading.counts.go_on(&event, &mut reading.gatherer, from)
                });
            }
            self.frame.sift(&mut reading.gatherer.gathered).await?;
            // Many small events take long together.
            tokio::task::yield_now().await;
        }
        let count = events.len();
        if is_whole {
            // One with a key is not kept, and the page is read anew.
            let redactor = self.frame.parts.responder.redactor();
            let etag = answer.etag.clone();
            let etag = etag.filter(|etag| !redactor.holds_key(etag));
            reading.tags.push((answer.token, page, etag));
        }
        Ok(reading.goes_on() && answer.has_next(count, full))
    }
}
