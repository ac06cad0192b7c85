//! What kept others waiting lately: it is read beside them from then on, and not in front of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::fetch::Place;
use crate::store::{NewWorkItem, owner};

/// For how long a repository, or an owner, that was slow counts as slow.
const SLOW: Duration = Duration::from_mins(1);

/// The number of an owner's slow repositories from which on all of them are.
const REPOSITORIES_OF_SLOW: usize = 8;

/// How often an item gives way to others in the large lane until it has a turn there whoever waits, and again until
/// the next.
const WAYS_GIVEN: u32 = 8;

/// The part of the time that such turns of a host's items may take, as a divisor.
const KEPT_SHARE: u32 = 10;

/// How long an item waits, after it had to leave, until it may have the turn of one that is always due.
const DUE: Duration = Duration::from_secs(30);

/// The most owners, and the most items, of which anything is known. Strangers can name more.
const KNOWN_MAX: usize = 1_024;

/// The most repositories of an owner that are remembered: beyond, all of them are slow.
const REPOSITORIES_MAX: usize = 16;

/// Whose fetches took longer than others could be kept waiting. Shared by the items under way.
#[derive(Debug, Default)]
pub(super) struct Slow(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By host and owner.
    owners: HashMap<(String, String), Owner>,
    /// Which items had to leave the large lane.
    outpaced: HashMap<Uuid, Outpaced>,
    /// Until when no item of a host keeps its place whoever waits. All strangers are one host.
    kept: HashMap<String, Instant>,
}

/// An item that had to leave the large lane.
#[derive(Debug, Clone, Copy)]
struct Outpaced {
    /// How often it had to.
    times: u32,
    /// When it last had to.
    since: Instant,
    /// How often it had a turn whoever waited.
    kept: u32,
}

/// The repositories of an owner that were slow, until when they count as such.
type Owner = HashMap<String, Instant>;

impl Slow {
    /// Notes that a repository kept others waiting.
    pub(super) fn note(&self, item: &NewWorkItem) {
        let now = Instant::now();
        let mut known = self.lock();
        let name = (item.host.clone(), owner(&item.repository));
        let is_over = |owner: &mut Owner| owner.values().all(|until| *until <= now);
        make_room(&mut known.owners, &name, is_over);
        let slow = known.owners.entry(name).or_default();
        slow.retain(|_, until| *until > now);
        if slow.len() < REPOSITORIES_MAX || slow.contains_key(&item.repository_id) {
            slow.insert(item.repository_id.clone(), now + SLOW);
        }
    }

    /// Returns whether a repository, or several others of its owner, kept others waiting lately.
    pub(super) fn is_slow(&self, item: &NewWorkItem) -> bool {
        self.is_slow_at(item, Instant::now())
    }

    fn is_slow_at(&self, item: &NewWorkItem, now: Instant) -> bool {
        let name = (item.host.clone(), owner(&item.repository));
        let known = self.lock();
        let Some(slow) = known.owners.get(&name) else {
            return false;
        };
        let all = slow.values().filter(|until| **until > now).count();
        let own = slow.get(&item.repository_id).is_some_and(|u| *u > now);
        own || all >= REPOSITORIES_OF_SLOW
    }

    /// Returns how often an item had to leave the large lane so far.
    pub(super) fn outpaced(&self, id: Uuid) -> u32 {
        self.lock().outpaced.get(&id).map_or(0, |of| of.times)
    }

    /// Returns since when an item has waited that had to leave the large lane a good while ago.
    pub(super) fn due_since(&self, id: Uuid) -> Option<Instant> {
        let known = self.lock();
        let since = known.outpaced.get(&id)?.since;
        Some(since).filter(|since| since.elapsed() >= DUE)
    }

    /// Notes that an item has to leave the large lane, once more.
    pub(super) fn note_outpaced(&self, id: Uuid) {
        let now = Instant::now();
        let mut known = self.lock();
        make_room(&mut known.outpaced, &id, |_| false);
        let of = known.outpaced.entry(id).or_insert(Outpaced {
            times: 0,
            since: now,
            kept: 0,
        });
        of.times = of.times.saturating_add(1);
        of.since = now;
    }

    /// Returns how many turns an item had in the large lane whoever waited, when it has another such turn now: it gave
    /// way often enough, and no other of its host had one lately.
    pub(super) fn keep(&self, id: Uuid, host: &str) -> Option<u32> {
        let now = Instant::now();
        let mut known = self.lock();
        let Known { outpaced, kept, .. } = &mut *known;
        let of = outpaced.get_mut(&id)?;
        if of.times < WAYS_GIVEN.saturating_mul(of.kept.saturating_add(1))
            || kept.get(host).is_some_and(|until| *until > now)
        {
            return None;
        }
        let turn = Place::kept_turn(of.kept);
        kept.insert(host.to_owned(), now + turn * KEPT_SHARE);
        of.kept += 1;
        Some(of.kept - 1)
    }

    /// Forgets an item.
    pub(super) fn ended(&self, id: Uuid) {
        self.lock().outpaced.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more, by forgetting what is over, or if that is nothing, any one.
fn make_room<K: Eq + Hash + Clone, V>(
    known: &mut HashMap<K, V>,
    name: &K,
    mut is_over: impl FnMut(&mut V) -> bool,
) {
    if known.len() < KNOWN_MAX || known.contains_key(name) {
        return;
    }
    known.retain(|_, of| !is_over(of));
    if known.len() >= KNOWN_MAX {
        let any = known.keys().next().cloned();
        any.map(|any| known.remove(&any));
    }
}

#[cfg(test)]
mod tests {
    use super::super::pauses::tests::item;
    use super::*;

    fn named(host: &str, owner: &str, id: &str) -> NewWorkItem {
        NewWorkItem {
            repository: format!("{owner}/{id}"),
            ..item(host, id)
        }
    }

    #[test]
    fn a_repository_is_slow_for_a_while_and_its_owner_when_many_are() {
        let (slow, now) = (Slow::default(), Instant::now());
        for n in 0..REPOSITORIES_OF_SLOW {
            assert!(!slow.is_slow(&named("a", "mallory", "other")), "{n}");
            let one = named("a", "mallory", &n.to_string());
            slow.note(&one);
            assert!(slow.is_slow(&one));
        }
        assert!(slow.is_slow(&named("a", "mallory", "other")));
        assert!(!slow.is_slow(&named("a", "alice", "0")));
        assert!(!slow.is_slow(&named("b", "mallory", "0")));
        assert!(!slow.is_slow_at(&named("a", "mallory", "0"), now + SLOW * 2));
    }

    #[test]
    fn what_gave_way_often_has_a_turn_but_few_of_a_host_have() {
        let slow = Slow::default();
        let [first, second] = [Uuid::now_v7(), Uuid::now_v7()];
        for _ in 0..WAYS_GIVEN {
            assert_eq!(slow.keep(first, "a"), None);
            slow.note_outpaced(first);
            slow.note_outpaced(second);
        }
        assert_eq!(slow.due_since(first), None);
        assert_eq!(slow.keep(first, "a"), Some(0));
        assert_eq!(slow.keep(second, "a"), None);
        assert_eq!(slow.keep(second, "b"), Some(0));
        let now = Instant::now();
        slow.lock().kept.values_mut().for_each(|until| *until = now);
        // Not before it gave way as often again.
        assert_eq!(slow.keep(first, "a"), None);
        for _ in 0..WAYS_GIVEN {
            slow.note_outpaced(first);
        }
        assert_eq!(slow.keep(first, "a"), Some(1));
        let rest = slow.lock().kept["a"] - now;
        assert!(rest >= Place::kept_turn(1) * KEPT_SHARE, "{rest:?}");
        slow.lock().outpaced.get_mut(&first).unwrap().since = now.checked_sub(DUE).unwrap();
        assert!(slow.due_since(first).is_some());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let slow = Slow::default();
        for n in 0..2 * KNOWN_MAX {
            slow.note(&named("a", &n.to_string(), "1"));
            slow.note(&named("a", "mallory", &n.to_string()));
            slow.note_outpaced(Uuid::now_v7());
        }
        let id = Uuid::now_v7();
        slow.note_outpaced(id);
        slow.note_outpaced(id);
        assert_eq!(slow.outpaced(id), 2);
        slow.ended(id);
        assert_eq!(slow.outpaced(id), 0);
        let known = slow.lock();
        assert!(known.owners.len() <= KNOWN_MAX && known.outpaced.len() <= KNOWN_MAX);
        assert!(known.owners.values().all(|of| of.len() <= REPOSITORIES_MAX));
    }
}
