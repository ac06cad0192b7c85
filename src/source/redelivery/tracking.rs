//! Failed deliveries that are tracked from one sweep to the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::forge::is_plain_id;

/// Time for which GitHub lists a delivery and redelivers it.
const LISTED: Duration = Duration::from_hours(72);

/// Maximum number of failed deliveries that are tracked per webhook.
const MAX_PENDING: usize = 2_000;

/// Maximum length of an entry in the list of deliveries, in bytes of JSON. GitHub's have some 500.
const MAX_ENTRY: usize = 16 << 10;

/// Maximum number of parts of a list that are left for later sweeps.
const MAX_GAPS: usize = 16;

/// Maximum number of redelivery requests per delivery.
const MAX_TRIES: u32 = 8;

/// State of all webhooks by name; stored in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    #[serde(default)]
    pub(super) hooks: BTreeMap<String, HookState>,
}

/// State of one webhook.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct HookState {
    /// Highest `id` that was read.
    #[serde(default)]
    pub(super) newest: u64,
    /// Deliveries without a successful attempt, by `guid`.
    #[serde(default)]
    pub(super) pending: BTreeMap<String, Pending>,
    /// Parts of the list that are still to be read, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gaps: Vec<Gap>,
}

/// A part of the list that a sweep left unread because it was too long.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Gap {
    /// Cursor of its first page.
    pub(super) cursor: String,
    /// Highest `id` that was read before it.
    pub(super) after: u64,
    /// Deliveries that were delivered again after it: attempts in it that failed say nothing about them.
    #[serde(default)]
    settled: BTreeSet<String>,
    /// Number of sweeps that failed to read it.
    #[serde(default)]
    pub(super) failed: u32,
}

impl Gap {
    /// Creates the gap between what was read before, up to the id `after`, and what was `seen` now.
    pub(super) fn before(cursor: String, after: u64, seen: &[Attempt]) -> Self {
        let mut gap = Self {
            cursor,
            after,
            settled: BTreeSet::new(),
            failed: 0,
        };
        gap.settle(seen);
        gap
    }

    /// Remembers which deliveries were delivered again.
    pub(super) fn settle(&mut self, seen: &[Attempt]) {
        let again = seen.iter().filter(|one| one.redelivery && one.succeeded());
        let room = MAX_PENDING.saturating_sub(self.settled.len());
        self.settled
            .extend(again.map(|one| one.guid.clone()).take(room));
    }

    /// Returns whether a later attempt of the delivery succeeded.
    pub(super) fn knows(&self, one: &Attempt) -> bool {
        !one.succeeded() && self.settled.contains(&one.guid)
    }
}

impl HookState {
    /// Adds a gap. Returns `false` if the oldest one had to be given up for it.
    pub(super) fn open(&mut self, gap: Gap) -> bool {
        self.gaps.push(gap);
        let has_room = self.gaps.len() <= MAX_GAPS;
        if !has_room {
            self.gaps.remove(0);
        }
        has_room
    }
}

/// A delivery without a successful attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Entry `id` of the last attempt.
    pub(super) id: u64,
    /// Time of the first known attempt.
    pub(super) at: Timestamp,
    /// Number of redelivery requests so far.
    #[serde(default)]
    pub(super) tries: u32,
    /// Time of the next redelivery request; `None` if it is due immediately.
    #[serde(default)]
    pub(super) next: Option<Timestamp>,
}

/// An entry in the list of deliveries: one attempt.
#[derive(Debug, Deserialize)]
pub(super) struct Attempt {
    pub(super) id: u64,
    pub(super) guid: String,
    pub(super) delivered_at: Timestamp,
    /// `true` if it was not the first attempt.
    #[serde(default)]
    redelivery: bool,
    /// `true` if it is listed as successful. Only that is kept of the text.
    #[serde(default, rename = "status", deserialize_with = "is_ok")]
    is_ok: bool,
    #[serde(default)]
    status_code: Option<u16>,
}

impl Attempt {
    fn succeeded(&self) -> bool {
        let code = self.status_code.unwrap_or_default();
        (200..300).contains(&code) || self.is_ok
    }

    /// Parses an entry. Returns `None` if it is malformed, or longer than [`MAX_ENTRY`].
    pub(super) fn read(json: &str) -> Option<Self> {
        let listed: Self = match json.len() {
            ..=MAX_ENTRY => serde_json::from_str(json).ok()?,
            _ => return None,
        };
        listed.is_plain().then_some(listed)
    }

    /// Returns whether the `guid` is safe to store.
    fn is_plain(&self) -> bool {
        !self.guid.is_empty() && self.guid.len() <= 64 && is_plain_id(&self.guid)
    }
}

fn is_ok<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let status: Option<String> = Option::deserialize(from)?;
    Ok(status.as_deref() == Some("OK"))
}

/// Returns the time before which a delivery is not listed for long enough to be read.
pub(super) fn horizon(now: Timestamp) -> Timestamp {
    now.checked_sub(LISTED).unwrap_or(Timestamp::MIN)
}

/// Records the outcome of attempts that were not read before.
pub(super) fn learn(state: &mut HookState, seen: &[Attempt]) {
    state.newest = seen.iter().map(|one| one.id).fold(state.newest, u64::max);
    for one in seen.iter().filter(|one| !one.succeeded()) {
        let pending = state.pending.entry(one.guid.clone());
        let pending = pending.or_insert_with(|| Pending {
            id: one.id,
            at: one.delivered_at,
            tries: 0,
            next: None,
        });
        pending.id = pending.id.max(one.id);
        pending.at = pending.at.min(one.delivered_at);
    }
    for one in seen.iter().filter(|one| one.succeeded()) {
        state.pending.remove(&one.guid);
    }
}

/// Drops the deliveries that are too old, were requested often enough, or exceed [`MAX_PENDING`]. Returns how many
/// were dropped.
pub(super) fn forget_old(state: &mut HookState, now: Timestamp) -> u64 {
    let before = state.pending.len();
    let horizon = horizon(now);
    state.pending.retain(|_, pending| {
        let over = pending.tries >= MAX_TRIES && pending.next.is_some_and(|next| next <= now);
        pending.at >= horizon && !over
    });
    if state.pending.len() > MAX_PENDING {
        let pending = std::mem::take(&mut state.pending);
        let mut newest_first: Vec<_> = pending.into_iter().collect();
        newest_first.sort_by_key(|(_, pending)| Reverse(pending.at));
        newest_first.truncate(MAX_PENDING);
        state.pending.extend(newest_first);
    }
    (before - state.pending.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: u64, guid: &str, code: u16, minute: i64) -> Attempt {
        Attempt {
            id,
            guid: guid.to_owned(),
            delivered_at: Timestamp::from_second(minute * 60).unwrap(),
            redelivery: false,
            is_ok: false,
            status_code: Some(code),
        }
    }

    #[test]
    fn of_an_entry_little_is_kept_however_long_it_is() {
        let entry = |status: &str| {
            format!(
                r#"{{"id": 1, "guid": "0a-1", "delivered_at": "2026-11-22T12:00:00Z", "status": "{status}"}}"#
            )
        };
        assert!(Attempt::read(&entry("OK")).is_some_and(|listed| listed.succeeded()));
        let failed = Attempt::read(&entry(&"x".repeat(MAX_ENTRY / 2)));
        assert!(failed.is_some_and(|listed| !listed.succeeded()));
        assert!(Attempt::read(&entry(&"x".repeat(MAX_ENTRY))).is_none());
        assert!(Attempt::read(&entry("OK").replace("0a-1", "no guid")).is_none());
    }

    #[test]
    fn any_attempt_that_succeeded_settles_a_delivery() {
        let mut state = HookState::default();
        learn(
            &mut state,
            &[
                listed(4, "b", 502, 4),
                listed(3, "a", 202, 3),
                listed(1, "a", 500, 1),
            ],
        );
        assert_eq!(state.newest, 4);
        assert_eq!(state.pending.keys().collect::<Vec<_>>(), ["b"]);
        learn(&mut state, &[listed(6, "b", 500, 6)]);
        assert_eq!(state.pending["b"].id, 6);
        learn(&mut state, &[listed(7, "b", 200, 7)]);
        assert!(state.pending.is_empty());
        let ok = Attempt {
            is_ok: true,
            status_code: None,
            ..listed(8, "c", 0, 8)
        };
        assert!(ok.succeeded());
    }

    #[test]
    fn nothing_is_kept_for_ever() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let pending = |at: i64, tries: u32| Pending {
            id: 1,
            at: Timestamp::from_second(at).unwrap(),
            tries,
            next: Some(now),
        };
        let mut state = HookState::default();
        state
            .pending
            .insert("old".to_owned(), pending(1_000_000 - 72 * 3600 - 1, 0));
        state
            .pending
            .insert("tried".to_owned(), pending(999_000, MAX_TRIES));
        state
            .pending
            .insert("kept".to_owned(), pending(999_000, MAX_TRIES - 1));
        let lost = forget_old(&mut state, now);
        assert_eq!(state.pending.keys().collect::<Vec<_>>(), ["kept"]);
        assert_eq!(lost, 2);
        for number in 0..3_000 {
            state
                .pending
                .insert(number.to_string(), pending(990_000 + number, 0));
        }
        forget_old(&mut state, now);
        assert_eq!(state.pending.len(), MAX_PENDING);
        // Those of the same moment as well.
        for number in 3_000..6_000 {
            state
                .pending
                .insert(number.to_string(), pending(999_999, 0));
        }
        let lost = forget_old(&mut state, now);
        assert_eq!((state.pending.len(), lost), (MAX_PENDING, 3_000));
    }
}
