//! Reading of the lists of deliveries: what is new, and what earlier sweeps left unread.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;

use super::tracking::{Attempt, Gap, HookState, horizon, learn};
use super::{Redelivery, Sweep, Trouble};
use crate::fetch::Body;
use crate::forge::kept_id;
use crate::offload::apart;
use crate::source::page::entries;

/// Maximum number of pages that one sweep reads per webhook, of 100 deliveries each. The next sweep goes on from there.
pub(super) const MAX_PAGES: u32 = 50;

/// Number of sweeps in which reading a gap may fail before it is given up.
const GAP_TRIES: u32 = 10;

/// Time for which a delivery may be listed later than those after it.
const LATE: Duration = Duration::from_mins(10);

/// End of the reading of a list.
#[derive(Clone, Copy)]
struct End {
    /// Highest id that was read before.
    after: u64,
    /// Time since which deliveries on the same page as that are read again: some may be listed late.
    late: Timestamp,
    /// Time before which deliveries are not listed for long enough to be read.
    horizon: Timestamp,
}

/// One end of a sweep's reading.
struct Read {
    seen: Vec<Attempt>,
    /// Cursor of the next page, if there is more to read.
    rest: Option<String>,
}

impl Redelivery {
    /// Reads the deliveries that are new. Returns the number of pages that are left to this sweep.
    pub(super) async fn read_new(
        &self,
        url: &Url,
        state: &mut HookState,
        sweep: &mut Sweep,
        now: Timestamp,
    ) -> Result<u32, Trouble> {
        let mut pages = MAX_PAGES;
        let end = End {
            after: state.newest,
            late: now.checked_sub(LATE).unwrap_or(Timestamp::MIN),
            horizon: horizon(now),
        };
        let Read { seen, rest } = self.read(url, None, end, sweep, &mut pages).await?;
        let gap = rest.map(|cursor| Gap::before(cursor, state.newest, &seen));
        learn(state, &seen);
        sweep.skipped += u64::from(gap.is_some_and(|gap| !state.open(gap)));
        Ok(pages)
    }

    /// Continues with the deliveries that earlier sweeps left unread, the newest of them first, for as many `pages`.
    pub(super) async fn read_gaps(
        &self,
        url: &Url,
        state: &mut HookState,
        sweep: &mut Sweep,
        (mut pages, now): (u32, Timestamp),
    ) -> Result<(), Trouble> {
        while pages > 0
            && let Some(mut gap) = state.gaps.pop()
        {
            let end = End {
                after: gap.after,
                late: Timestamp::MAX,
                horizon: horizon(now),
            };
            let from = Some(&*gap.cursor);
            let read = self.read(url, from, end, sweep, &mut pages).await;
            let Read { seen, rest } = match read {
                Ok(read) => read,
                Err(trouble) => {
                    // What is asked for later is no failure.
                    gap.failed += u32::from(!matches!(trouble, Trouble::Wait(_)));
                    if gap.failed < GAP_TRIES {
                        state.gaps.push(gap);
                    } else {
                        sweep.skipped += 1;
                    }
                    return Err(trouble);
                }
            };
            gap.settle(&seen);
            let unsettled: Vec<Attempt> = seen.into_iter().filter(|one| !gap.knows(one)).collect();
            learn(state, &unsettled);
            if let Some(cursor) = rest {
                gap.cursor = cursor;
                state.gaps.push(gap);
            }
        }
        Ok(())
    }

    /// Reads pages, newest deliveries first, until one that was read before or is past the retention of the list.
    async fn read(
        &self,
        url: &Url,
        from: Option<&str>,
        end: End,
        sweep: &mut Sweep,
        pages: &mut u32,
    ) -> Result<Read, Trouble> {
        let mut seen = Vec::new();
        let mut rest = from.map(str::to_owned);
        while *pages > 0 {
            *pages -= 1;
            let (listed, next) = self.page(url, rest.as_deref(), sweep).await?;
            let is_listed = |one: &Attempt| one.delivered_at >= end.horizon;
            let is_new = |one: &Attempt| one.id > end.after && is_listed(one);
            let reached = !listed.iter().all(is_new);
            sweep.listed += listed.iter().filter(|one| is_new(one)).count() as u64;
            let is_late = |one: &Attempt| one.delivered_at >= end.late && is_listed(one);
            seen.extend(listed.into_iter().filter(|one| is_new(one) || is_late(one)));
            rest = next.filter(|_| !reached);
            if rest.is_none() {
                break;
            }
        }
        Ok(Read { seen, rest })
    }

    async fn page(
        &self,
        url: &Url,
        cursor: Option<&str>,
        sweep: &mut Sweep,
    ) -> Result<(Vec<Attempt>, Option<String>), Trouble> {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("per_page", "100");
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let answer = self.api.get(&url, None, |_| None).await;
        let mut answer = answer.map_err(|error| self.trouble(error))?;
        // One with a key cannot be kept.
        let redactor = self.frame.parts.responder.redactor();
        let next = answer.next_cursor();
        let next = next.filter(|cursor| !redactor.holds_key(cursor));
        let text = answer.body.as_mut().map_or("", Body::json);
        let entries = apart(text.len(), || entries(text))
            .map_err(|_| Trouble::Outage("it sent no list of deliveries".to_owned()))?;
        let count = entries.len();
        let listed = entries
            .into_iter()
            .filter_map(|entry| Attempt::read(entry.get()))
            .map(|mut one| {
                one.guid = kept_id(redactor, &one.guid);
                one
            });
        let listed: Vec<Attempt> = listed.collect();
        sweep.malformed += (count - listed.len()) as u64;
        Ok((listed, next))
    }
}
