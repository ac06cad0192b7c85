//! Counts of one webhook, collected in memory and written to the database every few seconds. A delivery
//! that changes nothing costs the database nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::forge::Forge;
use crate::store::WebhookCounts;

/// Counts of one webhook.
#[derive(Debug)]
pub(super) struct DeliveryCounts {
    forge: Forge,
    since: Timestamp,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Counts that are not written to the database yet.
    fresh: WebhookCounts,
    changed: bool,
    /// Refused deliveries since the program started.
    refused: Refused,
    /// Number of deliveries without a valid proof since the last good one.
    unproved: u64,
    dropped: Option<Dropped>,
}

/// Deliveries whose senders are known, one after the other, of which something was lost.
#[derive(Debug)]
struct Dropped {
    deliveries: u64,
    /// Reason for the loss in the last of them.
    why: Loss,
    /// Time of the last of them, or of a later delivery of which less was lost.
    last_at: Timestamp,
}

/// Reason why part of a delivery is lost unless it is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The delivery announces pushes that cannot be used, for this reason.
    Unusable(String),
    /// 503: too many work items are waiting already.
    Full,
    /// 400: unreadable, for this reason.
    Unreadable(String),
    /// 503: not stored.
    Unavailable,
}

#[derive(Debug, Default, Clone, Copy)]
struct Refused {
    unproved: u64,
    unreadable: u64,
    too_large: u64,
    unavailable: u64,
}

/// Reason why a delivery was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 401: no valid proof.
    Unproved,
    /// 400: not readable.
    Unreadable,
    /// 413: too large.
    TooLarge,
    /// 503: not stored.
    Unavailable,
}

/// Properties of a good delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) unknown: bool,
    /// Reason why part of it could not be used.
    pub(super) malformed: Option<String>,
    /// `true` if it announces something to be fetched.
    pub(super) is_push: bool,
    pub(super) at: Timestamp,
}

impl DeliveryCounts {
    pub(super) fn new(forge: Forge, since: Timestamp) -> Self {
        let counts = Counts {
            // The webhook should be visible before its first delivery.
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
        counts.heard(good.is_push, good.at);
        counts.changed = true;
        counts.unproved = 0;
        let fresh = &mut counts.fresh;
        fresh.deliveries += 1;
        fresh.texts += 1;
        fresh.unknown += u64::from(good.unknown);
        fresh.malformed += u64::from(good.malformed.is_some());
        fresh.last_at = fresh.last_at.max(Some(good.at));
        if let Some(wrong) = good.malformed {
            fresh.unread = Some(wrong.clone());
            counts.lose(Loss::Unusable(wrong), good.at);
        }
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

    /// Counts a delivery of a known sender of which something is lost unless it is sent again.
    pub(super) fn dropped(&self, why: Loss, at: Timestamp) {
        self.lock().lose(why, at);
    }

    /// Takes what is to be written down, if there is something.
    pub(super) fn take(&self) -> Option<WebhookCounts> {
        let mut counts = self.lock();
        if !std::mem::take(&mut counts.changed) {
            return None;
        }
        let fresh = std::mem::take(&mut counts.fresh);
        let dropped = counts.dropped.as_ref();
        let error = dropped.map(|dropped| dropped.in_words(self.forge));
        Some(WebhookCounts {
            error: error.or_else(|| unproved_in_words(counts.unproved)),
            dropped_at: dropped.map(|dropped| dropped.last_at),
            refused: counts.refused.in_words(self.since),
            ..fresh
        })
    }

    /// Puts back counts that could not be written.
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
        fresh.unread = fresh.unread.take().or_else(|| taken.unread.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Notes a good delivery. One that tells of no push is no proof that pushes are taken.
    fn heard(&mut self, is_push: bool, at: Timestamp) {
        let Some(dropped) = &mut self.dropped else {
            return;
        };
        if is_push || !matches!(dropped.why, Loss::Unusable(_) | Loss::Full) {
            self.dropped = None;
        } else {
            dropped.last_at = dropped.last_at.max(at);
        }
    }

    fn lose(&mut self, why: Loss, at: Timestamp) {
        self.changed = true;
        let deliveries = self.dropped.as_ref().map_or(0, |before| before.deliveries);
        self.dropped = Some(Dropped {
            deliveries: deliveries + 1,
            why,
            last_at: at,
        });
    }
}

impl Dropped {
    fn in_words(&self, forge: Forge) -> String {
        let forge = forge.name();
        let again = "have the forge send them again (`webhooks.github.redelivery` does)";
        let (why, mend) = match &self.why {
            Loss::Unusable(wrong) => (
                format!("it told of a push that cannot be used: {wrong}"),
                format!(
                    "a server of your own has to stand in webhooks.{forge}.clone_hosts; the log names each delivery"
                ),
            ),
            Loss::Full => (
                "too much of its repository, its owner or its server waits to be read (503)"
                    .to_owned(),
                format!("wait until less is waiting, then {again}"),
            ),
            Loss::Unreadable(wrong) => (
                format!("it could not be read (400): {wrong}"),
                "look at the content type and the events that the forge sends".to_owned(),
            ),
            Loss::Unavailable => (
                "it could not be stored (503)".to_owned(),
                format!("see what the log says of the database, then {again}"),
            ),
        };
        let deliveries = self.deliveries;
        format!(
            "{deliveries} deliveries since the last good one were not taken whole, the last one because {why}; {mend}"
        )
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
        let counts = DeliveryCounts::new(Forge::GitHub, at);
        assert_eq!(counts.take(), Some(WebhookCounts::default()));
        assert_eq!(counts.take(), None);
        counts.refused(Refusal::Unproved);
        counts.refused(Refusal::TooLarge);
        let taken = counts.take().unwrap();
        assert!(taken.error.unwrap().starts_with("1 deliveries"));
        assert_eq!(
            taken.refused.unwrap(),
            "refused since 2026-11-22T20:46:15Z: 1 without a valid signature (401), 1 too large (413)"
        );
        let good = Good {
            unknown: true,
            malformed: None,
            is_push: true,
            at,
        };
        counts.good(good.clone());
        counts.items(2);
        let taken = counts.take().unwrap();
        let numbers = (taken.deliveries, taken.unknown, taken.items, taken.last_at);
        assert_eq!(numbers, (1, 1, 2, Some(at)));
        assert_eq!(taken.error, None);
        assert!(taken.refused.is_some());
        counts.put_back(&taken);
        counts.good(good);
        assert_eq!(counts.take().unwrap().deliveries, 2);
    }

    #[test]
    fn what_was_dropped_is_said_until_the_like_of_it_is_taken() {
        let at: Timestamp = "2026-11-22T20:46:15Z".parse().unwrap();
        let counts = DeliveryCounts::new(Forge::Gitea, at);
        let good = |is_push, malformed: Option<&str>| Good {
            unknown: false,
            malformed: malformed.map(str::to_owned),
            is_push,
            at,
        };
        let told = || counts.take().unwrap();
        counts.good(good(true, None));
        assert_eq!(told().error, None);
        counts.good(good(false, Some("of a strange server")));
        counts.dropped(Loss::Full, at);
        counts.good(good(true, Some("of a strange server")));
        let taken = told();
        let error = taken.error.unwrap();
        // A push beside it was taken.
        for part in [
            "1 deliveries",
            "strange server",
            "webhooks.gitea.clone_hosts",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(taken.dropped_at, Some(at));
        for (why, part) in [
            (Loss::Full, "(503)"),
            (Loss::Unavailable, "(503)"),
            (Loss::Unreadable("no JSON".to_owned()), "no JSON"),
        ] {
            let is_of_a_push = why == Loss::Full;
            counts.good(good(true, None));
            counts.dropped(why, at);
            let error = told().error.unwrap();
            assert!(
                error.starts_with("1 deliveries") && error.contains(part),
                "{error}"
            );
            // A star, or a comment.
            counts.good(good(false, None));
            assert_eq!(told().error.is_some(), is_of_a_push);
        }
        counts.dropped(Loss::Full, at);
        counts.refused(Refusal::Unproved);
        assert!(told().error.unwrap().contains("waits to be read"));
        counts.good(good(true, None));
        assert_eq!(told().dropped_at, None);
    }
}
