//! What one webhook saw, counted in memory and written down every few seconds: a delivery that changes nothing
//! costs the database nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::Forge;
use crate::store::WebhookCounts;

/// Counts of one webhook.
#[derive(Debug)]
pub(super) struct Tally {
    forge: Forge,
    since: Timestamp,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// What is not written down yet.
    fresh: WebhookCounts,
    changed: bool,
    /// Since the program started.
    refused: Refused,
    /// Since the last good delivery.
    unproved: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Refused {
    unproved: u64,
    unreadable: u64,
    too_large: u64,
    unavailable: u64,
}

/// Why a delivery was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 401
    Unproved,
    /// 400
    Unreadable,
    /// 413
    TooLarge,
    /// 503
    Unavailable,
}

/// What a good delivery was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) unknown: bool,
    pub(super) malformed: bool,
    pub(super) at: Timestamp,
}

impl Tally {
    pub(super) fn new(forge: Forge, since: Timestamp) -> Self {
        let counts = Counts {
            // The webhook is to be seen before its first delivery.
            changed: true,
            ..Counts::default()
        };
        Self {
            forge,
            since,
            counts: Mutex::new(counts),
        }
    }

    pub(super) fn forge(&self) -> Forge {
        self.forge
    }

    pub(super) fn good(&self, good: Good) {
        let mut counts = self.lock();
        counts.changed = true;
        counts.unproved = 0;
        let fresh = &mut counts.fresh;
        fresh.deliveries += 1;
        fresh.texts += 1;
        fresh.unknown += u64::from(good.unknown);
        fresh.malformed += u64::from(good.malformed);
        fresh.last_at = fresh.last_at.max(Some(good.at));
    }

    pub(super) fn items(&self, items: u64) {
        let mut counts = self.lock();
        counts.changed |= items > 0;
        counts.fresh.items += items;
    }

    pub(super) fn refused(&self, why: Refusal) {
        let mut counts = self.lock();
        counts.changed = true;
        let refused = &mut counts.refused;
        let number = match why {
            Refusal::Unproved => &mut refused.unproved,
            Refusal::Unreadable => &mut refused.unreadable,
            Refusal::TooLarge => &mut refused.too_large,
            Refusal::Unavailable => &mut refused.unavailable,
        };
        *number += 1;
        counts.unproved += u64::from(why == Refusal::Unproved);
    }

    /// Takes what is to be written down, if there is something.
    pub(super) fn take(&self) -> Option<WebhookCounts> {
        let mut counts = self.lock();
        if !std::mem::take(&mut counts.changed) {
            return None;
        }
        let fresh = std::mem::take(&mut counts.fresh);
        Some(WebhookCounts {
            error: unproved_in_words(counts.unproved),
            refused: counts.refused.in_words(self.since),
            ..fresh
        })
    }

    /// Gives back what could not be written down.
    pub(super) fn put_back(&self, taken: &WebhookCounts) {
        let mut counts = self.lock();
        counts.changed = true;
        let fresh = &mut counts.fresh;
        fresh.deliveries += taken.deliveries;
        fresh.items += taken.items;
        fresh.malformed += taken.malformed;
        fresh.texts += taken.texts;
        fresh.unknown += taken.unknown;
        fresh.last_at = fresh.last_at.max(taken.last_at);
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unproved_in_words(number: u64) -> Option<String> {
    (number > 0).then(|| {
        format!(
            "{number} deliveries since the last good one had a missing or wrong signature: compare the \
             forge's secret with the configured ones"
        )
    })
}

impl Refused {
    fn in_words(self, since: Timestamp) -> Option<String> {
        let kinds = [
            (self.unproved, "without a valid signature (401)"),
            (self.unreadable, "not readable (400)"),
            (self.too_large, "too large (413)"),
            (self.unavailable, "not stored, to be sent again (503)"),
        ];
        let kinds = kinds.into_iter().filter(|(number, _)| *number > 0);
        let words: Vec<String> = kinds
            .map(|(number, what)| format!("{number} {what}"))
            .collect();
        (!words.is_empty()).then(|| format!("refused since {since:.0}: {}", words.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_new_and_what_is_wrong() {
        let at: Timestamp = "2026-11-22T20:46:15Z".parse().unwrap();
        let tally = Tally::new(Forge::GitHub, at);
        assert_eq!(tally.take(), Some(WebhookCounts::default()));
        assert_eq!(tally.take(), None);
        tally.refused(Refusal::Unproved);
        tally.refused(Refusal::TooLarge);
        let taken = tally.take().unwrap();
        assert!(taken.error.unwrap().starts_with("1 deliveries"));
        assert_eq!(
            taken.refused.unwrap(),
            "refused since 2026-11-22T20:46:15Z: 1 without a valid signature (401), 1 too large (413)"
        );
        let good = Good {
            unknown: true,
            malformed: false,
            at,
        };
        tally.good(good);
        tally.items(2);
        let taken = tally.take().unwrap();
        let numbers = (taken.deliveries, taken.unknown, taken.items, taken.last_at);
        assert_eq!(numbers, (1, 1, 2, Some(at)));
        assert_eq!(taken.error, None);
        assert!(taken.refused.is_some());
        tally.put_back(&taken);
        tally.good(good);
        assert_eq!(tally.take().unwrap().deliveries, 2);
    }
}
