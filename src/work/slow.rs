//! Repositories and items that recently kept others waiting. They are read beside the others from then on, not in
//! front of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::fetch::FetchPlace;
use crate::store::NewWorkItem;

/// Time for which a repository or an owner that was slow counts as slow.
const SLOW: Duration = Duration::from_mins(1);

/// Number of slow repositories of an owner from which few of the owner's other repositories are read at a time.
const REPOSITORIES_OF_SLOW: usize = 8;

/// Number of owners of a host who recently kept others waiting from which the newest items of the host, too, have
/// turns.
const OWNERS_OF_CROWD: usize = 3;

/// Number of times an item gives way to others in the large lane before it gets a turn there that others cannot cut
/// short, and again before the next such turn.
const WAYS_GIVEN: u32 = 8;

/// Divisor of the share of time that such turns may take per host.
const KEPT_SHARE: u32 = 10;

/// Time that an item waits after it had to leave, before it may take precedence.
const DUE: Duration = Duration::from_secs(30);

/// Time after which the size of an item may be forgotten.
const SIZED: Duration = Duration::from_mins(15);

/// Maximum number of owners, and of items, that are tracked. Strangers can name more.
const KNOWN_MAX: usize = 1_024;

/// Maximum number of repositories that are tracked per owner.
const REPOSITORIES_MAX: usize = 16;

/// Repositories and items whose fetches took longer than others could be kept waiting. Shared by all items in flight.
#[derive(Debug, Default)]
pub(super) struct Slow(Mutex<Tracked>);

#[derive(Debug, Default)]
struct Tracked {
    /// Slow repositories by host and owner.
    owners: HashMap<(String, String), Owner>,
    /// Owners of each host whose items had to leave an ordinary place, with the time until which that counts.
    crowds: HashMap<String, Owner>,
    /// Items that had to leave the large lane.
    outpaced: HashMap<Uuid, Outpaced>,
    /// Items that are known to fit a medium place, with the time until which that is remembered.
    sized: HashMap<Uuid, Instant>,
    /// Time until which no item of a host gets another turn that others cannot cut short. All hosts that are not
    /// configured count as one.
    kept: HashMap<String, Instant>,
}

/// An item that had to leave the large lane.
#[derive(Debug, Clone, Copy)]
struct Outpaced {
    /// Number of times it had to leave.
    times: u32,
    /// Time when it last had to leave.
    since: Instant,
    /// Number of turns that others could not cut short.
    kept: u32,
}

/// Slow repositories of an owner, or owners of a host, with the time until which they count as slow.
type Owner = HashMap<String, Instant>;

impl Slow {
    /// Records that a repository kept others waiting.
    pub(super) fn note(&self, item: &NewWorkItem) {
        let now = Instant::now();
        let mut known = self.lock();
        let name = (item.host.clone(), item.owner());
        let is_over = |owner: &mut Owner| owner.values().all(|until| *until <= now);
        make_room(&mut known.owners, &name, is_over);
        let slow = known.owners.entry(name).or_default();
        slow.retain(|_, until| *until > now);
        if slow.len() < REPOSITORIES_MAX || slow.contains_key(&item.remote()) {
            slow.insert(item.remote(), now + SLOW);
        }
    }

    /// Records that an item had to leave an ordinary place, which others wait for.
    pub(super) fn note_left(&self, item: &NewWorkItem) {
        let now = Instant::now();
        let mut known = self.lock();
        let is_over = |owners: &mut Owner| owners.values().all(|until| *until <= now);
        make_room(&mut known.crowds, &item.host, is_over);
        let owners = known.crowds.entry(item.host.clone()).or_default();
        owners.retain(|_, until| *until > now);
        let owner = item.owner();
        if owners.len() < OWNERS_OF_CROWD || owners.contains_key(&owner) {
            owners.insert(owner, now + SLOW);
        }
    }

    /// Returns whether items of several owners of a host recently had to leave ordinary places. Each of them takes a
    /// while to be found out.
    pub(super) fn is_crowded(&self, host: &str) -> bool {
        let (known, now) = (self.lock(), Instant::now());
        known.crowds.get(host).is_some_and(|owners| {
            let owners = owners.values().filter(|until| **until > now);
            owners.count() >= OWNERS_OF_CROWD
        })
    }

    /// Returns whether a repository recently kept others waiting.
    pub(super) fn is_slow(&self, item: &NewWorkItem) -> bool {
        self.is_slow_at(item, Instant::now())
    }

    fn is_slow_at(&self, item: &NewWorkItem, now: Instant) -> bool {
        let name = (item.host.clone(), item.owner());
        let known = self.lock();
        let slow = known.owners.get(&name);
        let until = slow.and_then(|slow| slow.get(&item.remote()));
        until.is_some_and(|until| *until > now)
    }

    /// Like [`Slow::is_slow`], by name.
    pub(super) fn is_slow_named(&self, host: &str, owner: &str, remote: &str) -> bool {
        let name = (host.to_owned(), owner.to_owned());
        let (known, now) = (self.lock(), Instant::now());
        let slow = known.owners.get(&name);
        let until = slow.and_then(|slow| slow.get(remote));
        until.is_some_and(|until| *until > now)
    }

    /// Returns whether a host has an owner of whom several repositories recently kept others waiting.
    pub(super) fn has_slow_owner(&self, host: &str) -> bool {
        let (known, now) = (self.lock(), Instant::now());
        let mut owners = known.owners.iter().filter(|((at, _), _)| at == host);
        owners.any(|(_, slow)| {
            let slow = slow.values().filter(|until| **until > now);
            slow.count() >= REPOSITORIES_OF_SLOW
        })
    }

    /// Returns whether several repositories of an owner recently kept others waiting. Others of that owner may be as
    /// slow, and strangers can create as many as they like; but they may as well be healthy.
    pub(super) fn is_slow_owner(&self, host: &str, owner: &str) -> bool {
        self.is_slow_owner_at(host, owner, Instant::now())
    }

    fn is_slow_owner_at(&self, host: &str, owner: &str, now: Instant) -> bool {
        let name = (host.to_owned(), owner.to_owned());
        let known = self.lock();
        known.owners.get(&name).is_some_and(|slow| {
            let slow = slow.values().filter(|until| **until > now);
            slow.count() >= REPOSITORIES_OF_SLOW
        })
    }

    /// Returns the number of times an item had to leave the large lane.
    pub(super) fn outpaced(&self, id: Uuid) -> u32 {
        self.lock().outpaced.get(&id).map_or(0, |of| of.times)
    }

    /// Records that an item is known to fit a medium place.
    pub(super) fn note_sized(&self, id: Uuid) {
        let now = Instant::now();
        let mut known = self.lock();
        make_room(&mut known.sized, &id, |until| *until <= now);
        known.sized.insert(id, now + SIZED);
    }

    /// Returns whether an item is known to fit a medium place.
    pub(super) fn is_sized(&self, id: Uuid) -> bool {
        self.lock().sized.contains_key(&id)
    }

    /// Returns the time when an item last had to leave the large lane, if that was at least [`DUE`] ago.
    pub(super) fn due_since(&self, id: Uuid) -> Option<Instant> {
        let known = self.lock();
        let since = known.outpaced.get(&id)?.since;
        Some(since).filter(|since| since.elapsed() >= DUE)
    }

    /// Records that an item has to leave the large lane.
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

    /// Grants an item a turn in the large lane that others cannot cut short, if it gave way often enough and no other
    /// item of its host had such a turn recently. Returns the number of such turns it had before.
    pub(super) fn keep(&self, id: Uuid, host: &str) -> Option<u32> {
        let now = Instant::now();
        let mut known = self.lock();
        let Tracked { outpaced, kept, .. } = &mut *known;
        let of = outpaced.get_mut(&id)?;
        if of.times < WAYS_GIVEN.saturating_mul(of.kept.saturating_add(1))
            || kept.get(host).is_some_and(|until| *until > now)
        {
            return None;
        }
        let turn = FetchPlace::kept_turn(of.kept);
        kept.insert(host.to_owned(), now + turn * KEPT_SHARE);
        of.kept += 1;
        Some(of.kept - 1)
    }

    /// Forgets an item that is complete.
    pub(super) fn ended(&self, id: Uuid) {
        let mut known = self.lock();
        known.outpaced.remove(&id);
        known.sized.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more entry by dropping those that are over, or if there are none, an arbitrary one.
pub(super) fn make_room<K: Eq + Hash + Clone, V>(
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
            assert!(!slow.is_slow_owner("a", "mallory"), "{n}");
            let one = named("a", "mallory", &n.to_string());
            slow.note(&one);
            assert!(slow.is_slow(&one));
        }
        assert!(slow.is_slow_owner("a", "mallory"));
        assert!(!slow.is_slow(&named("a", "mallory", "other")));
        assert!(!slow.is_slow_owner("a", "alice") && !slow.is_slow_owner("b", "mallory"));
        assert!(!slow.is_slow(&named("b", "mallory", "0")));
        assert!(!slow.is_slow_at(&named("a", "mallory", "0"), now + SLOW * 2));
        assert!(!slow.is_slow_owner_at("a", "mallory", now + SLOW * 2));
    }

    #[test]
    fn a_host_is_crowded_when_items_of_several_owners_had_to_leave() {
        let slow = Slow::default();
        for n in 0..9 {
            slow.note_left(&named("a", "mallory", &n.to_string()));
            slow.note_left(&named(&n.to_string(), "mallory", "1"));
        }
        slow.note_left(&named("a", "alice", "1"));
        assert!(!slow.is_crowded("a") && !slow.is_crowded("1"));
        slow.note_left(&named("a", "bob", "1"));
        assert!(slow.is_crowded("a") && !slow.is_crowded("b"));
        let now = Instant::now();
        let mut known = slow.lock();
        let crowd = known.crowds.get_mut("a").unwrap();
        for until in crowd.values_mut() {
            *until = now;
        }
        drop(known);
        assert!(!slow.is_crowded("a"));
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
        assert!(rest >= FetchPlace::kept_turn(1) * KEPT_SHARE, "{rest:?}");
        slow.lock().outpaced.get_mut(&first).unwrap().since = now.checked_sub(DUE).unwrap();
        assert!(slow.due_since(first).is_some());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let slow = Slow::default();
        for n in 0..2 * KNOWN_MAX {
            slow.note(&named("a", &n.to_string(), "1"));
            slow.note(&named("a", "mallory", &n.to_string()));
            slow.note_left(&named(&n.to_string(), "mallory", "1"));
            slow.note_outpaced(Uuid::now_v7());
            slow.note_sized(Uuid::now_v7());
        }
        let id = Uuid::now_v7();
        slow.note_outpaced(id);
        slow.note_outpaced(id);
        slow.note_sized(id);
        assert_eq!((slow.outpaced(id), slow.is_sized(id)), (2, true));
        slow.ended(id);
        assert_eq!((slow.outpaced(id), slow.is_sized(id)), (0, false));
        let known = slow.lock();
        assert!(known.crowds.len() <= KNOWN_MAX && known.sized.len() <= KNOWN_MAX);
        assert!(known.owners.len() <= KNOWN_MAX && known.outpaced.len() <= KNOWN_MAX);
        assert!(known.owners.values().all(|of| of.len() <= REPOSITORIES_MAX));
    }
}
