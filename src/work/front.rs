//! The first items of a queue, in the order in which a worker takes them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::Worker;
use super::pauses::Condition;
use crate::store::{Claimable, Lane, Queue, StoreError};

/// Maximum number of items per host that are read in one round, from repositories that have not used up their places.
const FRONT_MAX: u32 = 64;

/// Maximum number of items that are read of a host in trouble, or with slow owners, and in the lanes of few places, where
/// the one is next whose owner had the least of the time.
const PROBED_MAX: u32 = 512;

impl Worker {
    /// Returns the first items of a queue, except those of paused repositories and of repositories in `full`.
    /// Repositories that failed or were slow recently come last. While few places are left to a host in trouble, or to an
    /// owner of slow repositories, the newest items mostly come first: those that wait may be what the trouble consists
    /// of.
    pub(super) async fn front(
        &self,
        queue: &Queue,
        mut full: Vec<String>,
    ) -> Result<Vec<Claimable>, StoreError> {
        let (pauses, host) = (&self.shared.pauses, &queue.host);
        full.extend(pauses.paused_of(host));
        let full: Vec<&str> = full.iter().map(String::as_str).collect();
        let slow = &self.shared.slow;
        let is_ordinary = queue.lane == Lane::Ordinary;
        let is_well = pauses.condition(host) == Condition::Well;
        let has_slow = slow.has_slow_owner(host);
        let most = if !is_ordinary || !is_well || has_slow {
            PROBED_MAX
        } else {
            FRONT_MAX
        };
        let store = &self.shared.parts.store;
        let mut front = store.front(queue, most, &full).await?;
        front.retain(|item| pauses.left(host, &item.remote).is_none());
        if is_ordinary && (!is_well || has_slow) && self.is_turn_of_newest() {
            if is_well {
                reverse_each(&mut front, |owner| slow.is_slow_owner(host, owner));
            } else {
                newest_of_each(&mut front);
            }
        }
        front.sort_by_cached_key(|item| {
            let (owner, remote) = (&item.owner, &item.remote);
            let is_slow = is_ordinary && slow.is_slow_named(host, owner, remote);
            (pauses.failed_lately(host, remote), is_slow)
        });
        Ok(front)
    }

    /// Returns whether the newest items are next. Those that have waited the longest have every third turn.
    fn is_turn_of_newest(&self) -> bool {
        self.shared.probes.fetch_add(1, Ordering::Relaxed) % 3 < 2
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

/// Reverses the order of the items of each owner that is meant, in the places that they have.
fn reverse_each(front: &mut [Claimable], is_meant: impl Fn(&str) -> bool) {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, item) in front.iter().enumerate() {
        places.entry(item.owner.clone()).or_default().push(at);
    }
    places.retain(|owner, _| is_meant(owner));
    for places in places.values() {
        let pairs = places.iter().zip(places.iter().rev());
        for (first, last) in pairs.take(places.len() / 2) {
            front.swap(*first, *last);
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
    fn the_newest_of_each_owner_come_first() {
        let mut items = front(&["a", "b", "a", "a", "c"]);
        newest_of_each(&mut items);
        assert_eq!(order(&items), ["4", "3", "1", "2", "0"]);
    }

    #[test]
    fn a_slow_owners_items_change_places_with_each_other_only() {
        let mut items = front(&["a", "b", "a", "b", "a", "b"]);
        reverse_each(&mut items, |owner| owner == "a");
        assert_eq!(order(&items), ["4", "1", "2", "3", "0", "5"]);
    }
}
