//! Events that name many keys of ours: they are read again once all others were committed.
//!
//! To write down what they name takes long, and there may be hundreds of them. Neither what is little nor the next poll
//! waits for that. Their names stand in the cursor, and pages are requested again, so that no text of theirs is held
//! meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::GitHubEvents;
use super::cursor::{Aside, Cursor};
use super::event::Event;
use super::gather::EventCounts;
use super::reading::{PAGES, Part, Stop, name_of};
use crate::forge::Gathered;
use crate::offload::{apart, block_on};
use crate::source::PollError;
use crate::source::kept::Kept;
use crate::source::page::entries;
use crate::store::SourceState;

/// Number of candidates of a page that are held until they are written down: as many as fit, with their places, in less
/// than 1 MiB. Every source that is polled may wait for its turn with so many.
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

/// Time for events that were put aside, if the next poll is not waited for by a schedule.
#[derive(Clone, Copy)]
struct Time {
    /// Time from which on no further one is begun.
    due: Option<Instant>,
    /// Time at which the one in progress is abandoned.
    at_last: Option<Instant>,
}

impl Time {
    fn until(due: Option<Instant>) -> Self {
        Self {
            due,
            at_last: due.map(|due| due.max(Instant::now() + AT_LEAST)),
        }
    }
}

/// Contents of one request.
#[derive(Default)]
struct Page {
    found: Vec<Found>,
    /// `true` if there was no room for everything: the page has to be requested again.
    is_full: bool,
    has_next: bool,
}

impl GitHubEvents {
    /// Reads events that were put aside, until all are done, or until the next poll is due. Each part of what they name
    /// is recorded as done once it is written down. Returns whether some are not on the feed any more.
    pub(super) async fn read_aside(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
        until: Option<Instant>,
    ) -> Result<bool, PollError> {
        let time = Time::until(until);
        let mut parts: VecDeque<Part> = (1..=PAGES).map(Part::whole).collect();
        while let Some(part) = parts.front().copied()
            && !cursor.aside.is_empty()
        {
            // Leaves enough of the rate limit for the next poll.
            let wanted = u64::from(PAGES) + 1;
            if !self.api.tokens.wait(wanted, self.frame.now()).is_zero() {
                return Ok(false);
            }
            let page = match self.gather_aside(part, &cursor.aside).await {
                Err(PollError::TooMuch(_)) if part.is_whole() => {
                    parts.pop_front();
                    Part::parts(part.page())
                        .rev()
                        .for_each(|part| parts.push_front(part));
                    continue;
                }
                // There is no such page.
                Err(PollError::Refused { status: 422 }) if part != Part::whole(1) => {
                    Page::default()
                }
                page => page?,
            };
            if self.write_aside(state, cursor, page.found, time).await? {
                return Ok(false);
            }
            if page.is_full {
                continue;
            }
            parts.pop_front();
            if !page.has_next {
                parts.clear();
            }
        }
        let lost = cursor.drop_aside();
        if lost > 0 {
            self.note_lost(state, lost);
            self.save(state, cursor).await?;
        }
        Ok(lost > 0)
    }

    /// Reports what was found in events that were put aside, and records that. Returns whether the time is over.
    async fn write_aside(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
        found: Vec<Found>,
        time: Time,
    ) -> Result<bool, PollError> {
        let (mut is_over, has_any) = (false, !found.is_empty());
        for found in found {
            let reporting = self.frame.report_many(&found.gathered.candidates);
            let reported = match time.at_last {
                Some(at_last) => timeout_at(at_last, reporting).await,
                None => Ok(reporting.await),
            };
            // Its turn may not come as long as others have much to write down.
            let Ok(reported) = reported else {
                is_over = true;
                break;
            };
            reported?;
            state.texts += found.gathered.texts;
            state.malformed += found.gathered.malformed;
            let count = found.gathered.candidates.len();
            cursor.note_aside(&found.name, count, found.is_done);
            is_over = time.due.is_some_and(|due| Instant::now() >= due);
            if is_over {
                break;
            }
        }
        if has_any {
            self.save(state, cursor).await?;
        }
        Ok(is_over)
    }

    /// Requests a page, or a part of one, and gathers the keys in events that were put aside. Little of them is held:
    /// the page is not, while they are written down.
    async fn gather_aside(&self, part: Part, aside: &VecDeque<Aside>) -> Result<Page, PollError> {
        let mut answer = self.request(part, None, |_| None).await?;
        let Some(mut body) = answer.body.take() else {
            return Err(PollError::NotAList("it has no contents"));
        };
        let text = apart(body.len(), || body.json());
        let events = apart(text.len(), || entries(text))?;
        let mut page = Page {
            has_next: part.has_next(&answer, events.len()),
            ..Page::default()
        };
        let mut room = ROOM;
        for json in events.iter().map(|event| event.get()) {
            let event = apart(json.len(), || Event::read(json, &self.options.host));
            let name = name_of(&event, json);
            let is_taken = page.found.iter().any(|found| found.name == name);
            let Some(Aside { name, done }) = aside.iter().find(|aside| aside.name == name) else {
                continue;
            };
            if is_taken {
                continue;
            }
            // Else those of others that are in the event would be looked up a few at a time.
            if room < ROOM / 4 {
                page.is_full = true;
                break;
            }
            let (gathered, is_done) = self.gather_again(&event, json.len(), *done, room).await?;
            room = room.saturating_sub(gathered.candidates.size().max(1));
            page.is_full |= !is_done;
            page.found.push(Found {
                name: name.clone(),
                gathered,
                is_done,
            });
            tokio::task::yield_now().await;
        }
        Ok(page)
    }

    /// Gathers the keys of ours in an event of `size` bytes, but the first ones, which are `done`. Returns them and
    /// whether there was room for all.
    async fn gather_again(
        &self,
        event: &Event<'_>,
        size: usize,
        mut done: usize,
        room: usize,
    ) -> Result<(Gathered, bool), PollError> {
        let mut gatherer = self.frame.gatherer_with(room);
        let mut counts = EventCounts::default();
        // What it announces was committed, and whether it can be read was counted. Its names may hold keys, too.
        apart(size, || {
            counts.announce(event, &mut gatherer, self.taking());
        });
        gatherer.gathered.items = Vec::new();
        gatherer.gathered.malformed = 0;
        let look_up = |gathered: &mut Gathered| {
            let candidates = &mut gathered.candidates;
            block_on(self.frame.retain_ours(candidates))?;
            done -= candidates.drop_first(done);
            let is_enough = candidates.size() * 2 >= room;
            if is_enough { Err(Stop::Enough) } else { Ok(()) }
        };
        let is_done = match apart(size, || counts.texts(event, &mut gatherer, look_up)) {
            Ok(()) => true,
            Err(Stop::Enough) => false,
            Err(Stop::Failed(error)) => return Err(error),
        };
        let mut gathered = gatherer.gathered;
        if is_done {
            self.frame.retain_ours(&mut gathered.candidates).await?;
            gathered.candidates.drop_first(done);
        }
        Ok((gathered, is_done))
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
