//! Statistics on bodies during a shortage of room, logged as a periodic summary instead of one by one.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ask::NoRoom;
use crate::server::client::standing::Standing;

/// Interval between two summaries.
const EVERY: Duration = Duration::from_secs(5);

/// Bodies of one budget that found no room, or were evicted, since the last summary.
#[derive(Debug, Default)]
pub(super) struct Shortage(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    since: Option<Instant>,
    slow: ByStanding,
    made_room: ByStanding,
    late: usize,
    crowded: usize,
}

/// Number of bodies per standing.
#[derive(Debug, Default)]
struct ByStanding([usize; Standing::ALL.len()]);

impl Shortage {
    /// Counts an evicted body, either too slow or in favor of one of better standing.
    pub(super) fn turned_out(&self, standing: Standing, is_slow: bool) {
        let mut counts = self.begun();
        if is_slow {
            counts.slow.add(standing);
        } else {
            counts.made_room.add(standing);
        }
    }

    /// Counts a refused body.
    pub(super) fn refused(&self, why: NoRoom) {
        let mut counts = self.begun();
        match why {
            NoRoom::Late => counts.late += 1,
            NoRoom::Crowded => counts.crowded += 1,
        }
    }

    /// Returns the time at which the next summary is due, or `None` if nothing was counted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().since?.checked_add(EVERY)
    }

    /// Logs the summary for bodies of this size if it is due, and resets the counts. Returns whether it was due.
    pub(super) fn tell(&self, size: &'static str, waiting: impl FnOnce() -> usize) -> bool {
        let mut counts = self.lock();
        let since = counts.since.filter(|since| since.elapsed() >= EVERY);
        let Some(since) = since else {
            return false;
        };
        let Counts {
            slow,
            made_room,
            late,
            crowded,
            ..
        } = std::mem::take(&mut *counts);
        drop(counts);
        tracing::warn!(
            size,
            seconds = since.elapsed().as_secs(),
            waiting = waiting(),
            too_slow = slow.text(),
            for_better_ones = made_room.text(),
            waited_too_long = late,
            too_many_waited = crowded,
            "more bodies come at once, or more slowly, than there is room for: senders of genuine ones go on, others \
             wait or are told to come again (503). If it lasts, have a proxy or firewall hold back who sends them"
        );
        true
    }

    fn begun(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.lock();
        counts.since.get_or_insert_with(Instant::now);
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ByStanding {
    fn add(&mut self, standing: Standing) {
        for (count, of) in self.0.iter_mut().zip(Standing::ALL) {
            *count += usize::from(of == standing);
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (count, of) in self.0.iter().zip(Standing::ALL) {
            if *count > 0 {
                let comma = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{comma}{count} {}", of.name());
            }
        }
        if text.is_empty() {
            text.push('0');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_by_standing() {
        let mut counts = ByStanding::default();
        assert_eq!(counts.text(), "0");
        for standing in [Standing::Unknown, Standing::Suspect, Standing::Unknown] {
            counts.add(standing);
        }
        assert_eq!(counts.text(), "1 suspect, 2 unknown");
    }

    #[test]
    fn what_was_counted_is_told_after_a_while_and_once() {
        let shortage = Shortage::default();
        assert_eq!(shortage.due(), None);
        shortage.turned_out(Standing::Slow, true);
        shortage.refused(NoRoom::Late);
        assert!(shortage.due().is_some_and(|due| due > Instant::now()));
        assert!(!shortage.tell("small", || 1));
        shortage.lock().since = Instant::now().checked_sub(EVERY);
        assert!(shortage.tell("small", || 1));
        assert_eq!(shortage.due(), None);
        assert!(!shortage.tell("small", || 1));
    }
}
