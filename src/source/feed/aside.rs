//! Events that name many keys of ours: they are read again once all others were committed.
//!
//! To write down what they name takes long, and there may be hundreds of them. Neither what is little nor the next
//! poll waits for that. Their names stand in the cursor. Of pages the last one is at hand; others are requested again,
//! as far as the rate limit leaves requests that no poll needs.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::GitHubEvents;
use super::cursor::{Aside, Cursor};
use super::event::Event;
use super::gather::EventCounts;
use super::reading::{PAGES, Page, Part, name_of};
use crate::forge::Gathered;
use crate::github::{GitHubError, INTERVAL};
use crate::offload::{apart, block_on};
use crate::source::PollError;
use crate::source::kept::Kept;
use crate::source::page::{entries, places};
use crate::store::SourceState;

/// Number of candidates of an event that are held until they are written down: as many as fit, with their places, in
/// less than 1 MiB. Every source that is polled may wait for its turn with so many.
const ROOM: usize = 2_500;

/// Time that the first of these events has at least, however soon the next poll is due.
const AT_LEAST: Duration = Duration::from_secs(8);

/// Keys of an event that was put aside.
struct Found {
    name: String,
    gathered: Gathered,
    /// `true` if there was room for all of them.
    is_done: bool,
}

/// Time for events that were put aside.
#[derive(Clone, Copy)]
pub(super) struct Time {
    /// Time from which on no further one is begun, if the next poll is not waited for by a schedule.
    due: Option<Instant>,
    /// Time at which the one in progress is abandoned.
    at_last: Option<Instant>,
    /// Time between two polls.
    interval: Duration,
}

impl Time {
    /// Returns the time until the next poll is `due`, of those that are `interval` apart. Zero is not known.
    pub(super) fn until(due: Option<Instant>, interval: Duration) -> Self {
        Self {
            due,
            at_last: due.map(|due| due.max(Instant::now() + AT_LEAST)),
            interval: if interval.is_zero() {
                INTERVAL
            } else {
                interval
            },
        }
    }
}

/// Reason for which the texts of an event are not scanned to their end.
enum Stop {
    /// As much was found as can be dealt with.
    Enough,
    Failed(PollError),
}

impl From<PollError> for Stop {
    fn from(error: PollError) -> Self {
        Self::Failed(error)
    }
}

/// Reason for which nothing more of a page is read.
enum PageEnd {
    /// Nothing is left on it.
    Done,
    /// Others wait for its memory.
    Wanted,
    /// The next poll is due, or the turn of an event did not come.
    Over,
}

impl GitHubEvents {
    /// Reads events that were put aside, those on the page that is `at_hand` first, until all are done, the next
    /// poll is due, or no requests are left for them. Each part of what they name is recorded as done once it is
    /// written down. Returns whether some are not on the feed any more.
    pub(super) async fn read_aside(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
        mut at_hand: Option<Page>,
        time: Time,
    ) -> Result<bool, PollError> {
        let mut parts: VecDeque<Part> = (1..=PAGES).map(Part::whole).collect();
        let mut asked = 0;
        while let Some(part) = parts.front().copied()
            && !cursor.aside.is_empty()
        {
            let page = match at_hand.take() {
                Some(page) => page,
                None if !self.has_spare(time.interval, asked) => return Ok(false),
                None => match self.page_again(part).await {
                    Err(PollError::TooMuch(_)) if part.is_whole() => {
                        asked += 1;
                        parts.pop_front();
                        Part::parts(part.page())
                            .rev()
                            .for_each(|part| parts.push_front(part));
                        continue;
                    }
                    // There is no such page.
                    Err(PollError::Api(GitHubError::Refused { status: 422 }))
                        if part != Part::whole(1) =>
                    {
                        break;
                    }
                    page => {
                        asked += 1;
                        page?
                    }
                },
            };
            let (at, has_next) = (page.part, page.has_next);
            match Box::pin(self.write_page(state, cursor, page, time)).await? {
                PageEnd::Over => return Ok(false),
                PageEnd::Wanted => continue,
                PageEnd::Done => {}
            }
            // What is behind a later page may have come from an earlier one meanwhile.
            if at == part {
                parts.pop_front();
                if !has_next {
                    break;
                }
            }
        }
        let lost = cursor.drop_aside();
        if lost > 0 {
            self.note_lost(state, lost);
            self.save(state, cursor).await?;
        }
        Ok(lost > 0)
    }

    /// Returns whether the rate limit leaves a request for events that were put aside: whoever owns many keys decides
    /// on their number, and must not blind the feed. Until there are more requests, each poll has one left, and all its
    /// pages if each of them was `asked` for once since the last poll.
    fn has_spare(&self, interval: Duration, asked: u32) -> bool {
        let (tokens, now) = (&self.api.tokens, self.frame.now());
        let of_a_poll = if asked < PAGES { 1 } else { PAGES };
        tokens.wait(u64::from(PAGES) + 1, now).is_zero() && tokens.pace(now) * of_a_poll <= interval
    }

    /// Requests a page, or a part of one, to read events on it again.
    async fn page_again(&self, part: Part) -> Result<Page, PollError> {
        let mut answer = self.request(part, None, |_| None).await?;
        let Some(mut body) = answer.body.take() else {
            return Err(PollError::NotAList("it has no contents"));
        };
        let text = apart(body.len(), || body.json());
        let events = apart(text.len(), || entries(text))?;
        let events = places(text, &events);
        let has_next = part.has_next(&answer, events.len());
        Ok(Page::new(part, has_next, body, events))
    }

    /// Reads the events on a page that were put aside to their end, reports what is found, and records that.
    async fn write_page(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
        mut page: Page,
        time: Time,
    ) -> Result<PageEnd, PollError> {
        while let Some(found) = self.gather_aside(&mut page, &cursor.aside).await? {
            let reporting = self.frame.report_many(&found.gathered.candidates);
            let reporting = async {
                match time.at_last {
                    Some(at_last) => timeout_at(at_last, reporting).await.ok(),
                    None => Some(reporting.await),
                }
            };
            let (reported, kept) = unless_wanted(page, Box::pin(reporting)).await;
            // Its turn may not come as long as others have much to write down.
            let Some(reported) = reported else {
                return Ok(PageEnd::Over);
            };
            reported?;
            state.texts += found.gathered.texts;
            state.malformed += found.gathered.malformed;
            let count = found.gathered.candidates.len();
            cursor.note_aside(&found.name, count, found.is_done);
            self.save(state, cursor).await?;
            if time.due.is_some_and(|due| Instant::now() >= due) {
                return Ok(PageEnd::Over);
            }
            let Some(kept) = kept else {
                return Ok(PageEnd::Wanted);
            };
            page = kept;
        }
        Ok(PageEnd::Done)
    }

    /// Gathers the keys in the next event on a page that was put aside, or as many of them as there is room for.
    /// Returns `None` if there is no such event.
    async fn gather_aside(
        &self,
        page: &mut Page,
        aside: &VecDeque<Aside>,
    ) -> Result<Option<Found>, PollError> {
        while let Some(json) = page.event() {
            let event = apart(json.len(), || self.event(json));
            let name = name_of(&event, json);
            if let Some(Aside { name, done }) = aside.iter().find(|aside| aside.name == name) {
                let (gathered, is_done) = self.gather_again(&event, json.len(), *done).await?;
                return Ok(Some(Found {
                    name: name.clone(),
                    gathered,
                    is_done,
                }));
            }
            page.go_on();
            tokio::task::yield_now().await;
        }
        Ok(None)
    }

    /// Gathers the keys of ours in an event of `size` bytes, but the first ones, which are `done`. Returns them and
    /// whether there was room for all.
    async fn gather_again(
        &self,
        event: &Event<'_>,
        size: usize,
        mut done: usize,
    ) -> Result<(Gathered, bool), PollError> {
        let mut gatherer = self.frame.gatherer_with(ROOM);
        let mut counts = EventCounts::default();
        // What it announces was committed, and whether it can be read was counted. Its names may hold keys, too.
        apart(size, || {
            counts.announce(event, &mut gatherer, self.taking());
        });
        gatherer.gathered.items = Vec::new();
        gatherer.gathered.malformed = 0;
        let look_up = |held: &mut Gathered| {
            let candidates = &mut held.candidates;
            block_on(self.frame.retain_ours(candidates))?;
            done -= candidates.drop_first(done);
            let is_enough = candidates.size() * 2 >= ROOM;
            if is_enough { Err(Stop::Enough) } else { Ok(()) }
        };
        let is_done = match apart(size, || counts.texts(event, &mut gatherer, look_up)) {
            Ok(()) => true,
            Err(Stop::Enough) => false,
            Err(Stop::Failed(error)) => return Err(error),
        };
        let mut found = gatherer.gathered;
        if is_done {
            self.frame.retain_ours(&mut found.candidates).await?;
            found.candidates.drop_first(done);
        }
        Ok((found, is_done))
    }

    /// Records events that were put aside and cannot be read any more.
    pub(super) fn note_lost(&self, state: &mut SourceState, lost: u64) {
        let (source, now) = (&self.frame.name, self.frame.now());
        state.gaps += 1;
        state.unseen = Some(format!(
            "{lost} events that name many keys were gone from the feed before they could be read again (as of {now:.0})"
        ));
        tracing::warn!(%source, lost, "events that name many keys are gone from the feed");
    }
}

/// Waits for `work`. Drops the page if others wait for its memory meanwhile, and returns it otherwise.
async fn unless_wanted<T>(page: Page, work: impl Future<Output = T>) -> (T, Option<Page>) {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return (done, Some(page)),
        () = page.wanted() => {}
    }
    drop(page);
    (work.await, None)
}
