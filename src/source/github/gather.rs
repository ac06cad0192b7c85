//! Events become work items and sightings.

use jiff::Timestamp;

use super::event::Event;
use super::payload::News;
use crate::forge::{Gatherer, Rest};
use crate::store::Priority;

/// How the events of a source are taken.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct Taking {
    /// The place of pushes in the queue.
    pub(in crate::source) priority: Priority,
    /// Whether forks are read too, after everything else.
    pub(in crate::source) forks: bool,
    /// The time of events that tell none.
    pub(in crate::source) now: Timestamp,
}

/// What was read of a number of events.
#[derive(Debug, Default)]
pub(in crate::source) struct Tally {
    /// Events, those that could not be read among them.
    pub(in crate::source) events: u64,
    /// Those of a type that is not known.
    pub(in crate::source) unknown: u64,
    /// Those that could not be read.
    pub(in crate::source) malformed: u64,
    /// What was wrong with the first of those.
    pub(in crate::source) wrong: Option<&'static str>,
}

impl Tally {
    /// Notes something that should have been an event.
    pub(in crate::source) fn malformed(&mut self, wrong: &'static str) {
        self.malformed += 1;
        self.wrong.get_or_insert(wrong);
    }

    /// Takes one event: what it tells to fetch, and what its texts give away. Returns whether, and from where, to
    /// [go on](Self::go_on) with it once there is room.
    pub(in crate::source) fn take(
        &mut self,
        event: &Event<'_>,
        gatherer: &mut Gatherer<'_>,
        taking: Taking,
    ) -> Option<Rest> {
        let at = event.at.unwrap_or(taking.now);
        self.events += 1;
        self.unknown += u64::from(event.is_unknown);
        for news in &event.news {
            match news {
                News::Push(push) => gatherer.push(push, taking.priority, at),
                News::Announcement(announced) => gatherer.announce(announced, taking.priority, at),
                News::Fork(fork) if taking.forks => {
                    gatherer.announce(fork, Priority::Backfill, at);
                }
                News::Fork(_) => {}
            }
        }
        if let Some(wrong) = event.malformed {
            self.malformed(wrong);
        }
        self.go_on(event, gatherer, Rest::default())
    }

    /// Goes on with the texts of an event.
    pub(in crate::source) fn go_on(
        &mut self,
        event: &Event<'_>,
        gatherer: &mut Gatherer<'_>,
        from: Rest,
    ) -> Option<Rest> {
        let repository = event.repository.as_ref().map(ToString::to_string);
        let json = event.texts?.get().as_bytes();
        gatherer
            .texts(json, repository.as_deref(), from)
            .unwrap_or_else(|_| {
                if event.malformed.is_none() {
                    self.malformed("its payload nests too deep, or has broken texts");
                }
                None
            })
    }
}
