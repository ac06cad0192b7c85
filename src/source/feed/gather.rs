//! Conversion of events to work items and sightings.

use jiff::Timestamp;

use super::event::Event;
use super::payload::News;
use crate::fetch::unescape;
use crate::forge::{Gathered, Gatherer};
use crate::store::Priority;

/// Options for converting the events of a source.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct Taking {
    /// Priority of pushes.
    pub(in crate::source) priority: Priority,
    /// `true` if forks are read as well, after everything else.
    pub(in crate::source) forks: bool,
    /// Time of events that have none.
    pub(in crate::source) now: Timestamp,
}

/// Counts of a number of events.
#[derive(Debug, Default)]
pub(in crate::source) struct EventCounts {
    /// Number of events, including those that could not be read.
    pub(in crate::source) events: u64,
    /// Number of events of an unknown type.
    pub(in crate::source) unknown: u64,
    /// Number of events that could not be read.
    pub(in crate::source) malformed: u64,
    /// Reason why the first of those could not be read.
    pub(in crate::source) wrong: Option<&'static str>,
}

impl EventCounts {
    /// Records something that should have been an event.
    pub(in crate::source) fn malformed(&mut self, wrong: &'static str) {
        self.malformed += 1;
        self.wrong.get_or_insert(wrong);
    }

    /// Gathers what one event announces. Its texts are left to [`texts`](Self::texts).
    pub(in crate::source) fn announce(
        &mut self,
        event: &Event<'_>,
        gatherer: &mut Gatherer<'_>,
        taking: Taking,
    ) {
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
    }

    /// Gathers the keys in the texts of an event. As often as the gatherer has no room for more, `look_up` makes some.
    ///
    /// # Errors
    /// Returns the error of `look_up`.
    pub(in crate::source) fn texts<E>(
        &mut self,
        event: &Event<'_>,
        gatherer: &mut Gatherer<'_>,
        mut look_up: impl FnMut(&mut Gathered) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(texts) = event.texts else {
            return Ok(());
        };
        let repository = event.repository.as_ref().map(ToString::to_string);
        let texts = texts.as_bytes();
        if let Ok(looked_up) = gatherer.texts(texts, repository.as_deref(), &mut look_up) {
            return looked_up;
        }
        if event.malformed.is_none() {
            self.malformed("its payload nests too deep, or has broken texts");
        }
        let mut texts = texts.to_vec();
        unescape(&mut texts);
        gatherer.plain_text(&texts, repository.as_deref(), look_up)
    }
}
