//! Reading the pages of a feed, down to what was read before.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::GitHubEvents;
use super::api::PER_PAGE;
use super::cursor::{Cursor, Seen};
use super::event::Event;
use super::gather::{Taking, Tally};
use super::page::{entries, text, turn};
use crate::forge::{Gatherer, Rest};
use crate::source::apart::apart;
use crate::source::{PollError, Scope};

/// Pages that the feed has.
pub(super) const PAGES: u32 = 3;

/// What was read in one poll.
pub(super) struct Reading<'k> {
    pub(super) gatherer: Gatherer<'k>,
    pub(super) tally: Tally,
    /// The ids of new events, newest first as the feed shows them.
    pub(super) ids: Vec<String>,
    known: HashSet<String>,
    /// Something was read before, and so was all that is older.
    pub(super) overlaps: bool,
    /// The pages, with the token they were asked for with and their `ETag`.
    pub(super) tags: Vec<(usize, u32, Option<String>)>,
    /// How long the server wants to be left alone, if it says so.
    pub(super) interval: Option<Duration>,
    /// The oldest and the newest time among new events.
    pub(super) times: Option<(Timestamp, Timestamp)>,
    /// What kept the later pages from being read.
    pub(super) incomplete: Option<PollError>,
}

impl<'k> Reading<'k> {
    fn new(gatherer: Gatherer<'k>) -> Self {
        Self {
            gatherer,
            tally: Tally::default(),
            ids: Vec::new(),
            known: HashSet::new(),
            overlaps: false,
            tags: Vec::new(),
            interval: None,
            times: None,
            incomplete: None,
        }
    }

    /// Takes an event unless it was read before. Events that come between two requests move others to the
    /// next page, and a feed may show one twice.
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
        self.tally.take(event, &mut self.gatherer, taking)
    }
}

impl GitHubEvents {
    /// Reads pages until one holds something that was seen before.
    pub(super) async fn read(&self, cursor: &Cursor) -> Result<Reading<'_>, PollError> {
        let seen = cursor.seen();
        let mut reading = Reading::new(self.keeper.gatherer());
        for page in 1..=PAGES {
            match self.read_page(page, cursor, &seen, &mut reading).await {
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

    /// Reads one page into `reading`; says whether the next one is worth asking for.
    async fn read_page(
        &self,
        page: u32,
        cursor: &Cursor,
        seen: &Seen,
        reading: &mut Reading<'_>,
    ) -> Result<bool, PollError> {
        let (per_page, number) = (PER_PAGE.to_string(), page.to_string());
        let path = [&self.options.scope.path()[..], &["events"]].concat();
        let url = self
            .api
            .url(&path, &[("per_page", &per_page), ("page", &number)]);
        let tag = |token| cursor.etag(token, page).map(str::to_owned);
        let preferred = reading.tags.last().map(|(token, ..)| *token);
        let answer = self.api.get(&url, preferred, tag).await?;
        if page == 1 {
            reading.interval = answer.interval;
        }
        let Some(body) = &answer.body else {
            // A tag is kept only of what was read to its end.
            reading.overlaps = true;
            return Ok(false);
        };
        let _turn = turn(body.len()).await;
        let text = apart(body.len(), || text(body));
        let events = apart(text.len(), || entries(&text))?;
        let taking = Taking {
            priority: self.options.scope.priority(),
            forks: self.options.scope != Scope::Public,
            now: self.keeper.now(),
        };
        for event in &events {
            let size = event.get().len();
            let event = apart(size, || Event::read(event.get(), &self.options.host));
            let mut rest = apart(size, || reading.take(&event, seen, taking));
            while let Some(from) = rest {
                self.keeper.sift(&mut reading.gatherer.gathered).await?;
                rest = apart(size, || {
                    reading.tally.go_on(&event, &mut reading.gatherer, from)
                });
            }
            self.keeper.sift(&mut reading.gatherer.gathered).await?;
            // Many small events take long together.
            tokio::task::yield_now().await;
        }
        reading.tags.push((answer.token, page, answer.etag.clone()));
        Ok(!reading.overlaps && answer.has_next(events.len()))
    }
}
