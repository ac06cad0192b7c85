//! The first items of a queue, in the order in which a worker takes them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::pauses::Condition;
use super::{Shared, Worker};
use crate::store::{Claimable, Lane, Queue, StoreError};

/// Maximum number of items per host that are read in one round, from repositories that have not used up their places.
const FRONT_MAX: u32 = 64;

/// Maximum number of items that are read of a host in trouble, or with slow owners, and in the lanes of few places,
/// where the one is next whose owner had the least of the time.
const PROBED_MAX: u32 = 512;

/// Maximum number of hosts and owners whose turns are tracked. Strangers can name more.
const TURNS_MAX: usize = 1_024;

/// Turns of the newest items and of those that have waited the longest, in the lanes of few places, at hosts in trouble
/// or with a crowd of slow owners, and with owners of slow repositories. The newest ones are next first.
#[derive(Debug, Default)]
pub(super) struct Turns(HashSet<(Lane, String, String)>);

impl Turns {
    /// Records that an item of an owner was taken, or of any owner of a host if the name is empty.
    pub(super) fn taken(&mut self, lane: Lane, host: &str, owner: &str) {
        let name = (lane, host.to_owned(), owner.to_owned());
        if self.0.remove(&name) {
            return;
        }
        if self.0.len() >= TURNS_MAX {
            self.0.clear();
        }
        self.0.insert(name);
    }

    fn is_of_newest(&self, lane: Lane, host: &str, owner: &str) -> bool {
        let name = (lane, host.to_owned(), owner.to_owned());
        !self.0.contains(&name)
    }
}

impl Worker {
    /// Returns the first items of a queue, except those of paused repositories and of repositories in `full`.
    /// Repositories that failed or were slow recently come last, and only others come while their host is paused. In the
    /// lanes of few places, at a host in trouble or with a crowd of slow owners, and with an owner of slow repositories,
    /// the newest items and those that have waited the longest take turns: what waits may be what the trouble consists
    /// of.
    pub(super) async fn front(
        &self,
        queue: &Queue,
        mut full: Vec<String>,
        turns: &Turns,
    ) -> Result<Vec<Claimable>, StoreError> {
        let (pauses, host) = (&self.shared.pauses, &queue.host);
        full.extend(pauses.paused_of(host));
        let full: Vec<&str> = full.iter().map(String::as_str).collect();
        let slow = &self.shared.slow;
        let is_ordinary = queue.lane == Lane::Ordinary;
        let is_well = pauses.condition(host) == Condition::Well;
        let is_whole = !is_ordinary || !is_well || slow.is_crowded(host);
        let most = if is_whole || slow.has_slow_owner(host) {
            PROBED_MAX
        } else {
            FRONT_MAX
        };
        let store = &self.shared.parts.store;
        let mut front = store.front(queue, most, &full).await?;
        let is_paused = pauses.left_of_host(host).is_some();
        front.retain(|item| {
            pauses.left_of_repository(host, &item.remote).is_none()
                && (!is_paused || pauses.may_probe(host, &item.owner, &item.remote))
        });
        let rank = |item: &Claimable| {
            let (owner, remote) = (&item.owner, &item.remote);
            let is_slow = slow.is_slow_named(host, owner, remote);
            (pauses.failed_lately(host, remote), is_slow)
        };
        front.sort_by_cached_key(rank);
        let is_of_newest = |owner: &str| turns.is_of_newest(queue.lane, host, owner);
        for equals in front.chunk_by_mut(|a, b| rank(a) == rank(b)) {
            if is_whole {
                by_turns(equals, is_of_newest(""));
            } else {
                each_by_turns(
                    equals,
                    |owner| slow.is_slow_owner(host, owner),
                    is_of_newest,
                );
            }
        }
        Ok(front)
    }

    /// Returns whose turn it is when an item of an owner is taken: that of any owner in a lane of few places, or of a
    /// host in trouble or with a crowd, which is an empty name, or that of an owner of slow repositories.
    pub(super) fn turn_of<'o>(&self, lane: Lane, host: &str, owner: &'o str) -> Option<&'o str> {
        let Shared { pauses, slow, .. } = &*self.shared;
        let is_well = pauses.condition(host) == Condition::Well;
        if lane != Lane::Ordinary || !is_well || slow.is_crowded(host) {
            return Some("");
        }
        Some(owner).filter(|owner| slow.is_slow_owner(host, owner))
    }
}

/// Puts the newest item of each owner first, and the newest of these before the others.
fn newest_of_each(front: &mut [Claimable]) {
    front.sort_by_key(|item| Reverse(item.id));
    let mut owners = HashSet::new();
    let is_next: HashSet<Uuid> = front
        .iter()
        .filter(|item| owners.insert(item.owner.clone()))
        .map(|item| item.id)
        .collect();
    front.sort_by_key(|item| !is_next.contains(&item.id));
}

/// Has the newest items and those in front take turns.
fn by_turns(front: &mut [Claimable], mut is_of_newest: bool) {
    let ids = |front: &[Claimable]| -> Vec<Uuid> { front.iter().map(|item| item.id).collect() };
    let mut first = ids(front).into_iter();
    newest_of_each(front);
    let mut newest = ids(front).into_iter();
    let mut ranks: HashMap<Uuid, usize> = HashMap::new();
    loop {
        let next = if is_of_newest {
            &mut newest
        } else {
            &mut first
        };
        let Some(next) = next.find(|id| !ranks.contains_key(id)) else {
            break;
        };
        ranks.insert(next, ranks.len());
        is_of_newest = !is_of_newest;
    }
    front.sort_by_key(|item| ranks.get(&item.id).copied());
}

/// Has the items of each owner that is meant take turns, in the places that they have.
fn each_by_turns(
    front: &mut [Claimable],
    is_meant: impl Fn(&str) -> bool,
    is_of_newest: impl Fn(&str) -> bool,
) {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, item) in front.iter().enumerate() {
        places.entry(item.owner.clone()).or_default().push(at);
    }
    places.retain(|owner, _| is_meant(owner));
    for (owner, places) in places {
        let mut items: Vec<Claimable> = places.iter().map(|at| front[*at].clone()).collect();
        by_turns(&mut items, is_of_newest(&owner));
        for (at, item) in places.into_iter().zip(items) {
            front[at] = item;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(owners: &[&str]) -> Vec<Claimable> {
        let one = |(n, owner): (usize, &&str)| Claimable {
            id: Uuid::from_u128(n as u128),
            remote: n.to_string(),
            owner: (*owner).to_owned(),
            deaths: 0,
        };
        owners.iter().enumerate().map(one).collect()
    }

    fn order(front: &[Claimable]) -> Vec<&str> {
        front.iter().map(|item| &*item.remote).collect()
    }

    #[test]
    fn the_newest_of_each_owner_and_what_waits_the_longest_take_turns() {
        let items = front(&["a", "b", "a", "a", "c"]);
        let by_turns = |is_of_newest| {
            let mut items = items.clone();
            by_turns(&mut items, is_of_newest);
            order(&items).concat()
        };
        assert_eq!(by_turns(true), "40312");
        assert_eq!(by_turns(false), "04132");
    }

    #[test]
    fn turns_change_when_an_item_is_taken_and_for_its_owner_only() {
        let mut turns = Turns::default();
        let lane = Lane::Ordinary;
        assert!(turns.is_of_newest(lane, "a", ""));
        for is_of_newest in [false, true, false] {
            turns.taken(lane, "a", "");
            assert_eq!(turns.is_of_newest(lane, "a", ""), is_of_newest);
            assert!(turns.is_of_newest(lane, "b", "") && turns.is_of_newest(lane, "a", "x"));
            assert!(turns.is_of_newest(Lane::Medium, "a", ""));
        }
        for n in 0..2 * TURNS_MAX {
            turns.taken(lane, "a", &n.to_string());
        }
        assert!(turns.0.len() <= TURNS_MAX);
    }

    #[test]
    fn a_slow_owners_items_change_places_with_each_other_only() {
        let mut items = front(&["a", "b", "a", "b", "a", "b"]);
        each_by_turns(&mut items, |owner| owner == "a", |_| true);
        assert_eq!(order(&items), ["4", "1", "0", "3", "2", "5"]);
    }
}
