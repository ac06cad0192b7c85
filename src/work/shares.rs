//! Fair sharing of a worker's places.
//!
//! Whatever one host or repository does, others find a place: the last places are reserved for urgent items, and not
//! for a host that already has some of them. Otherwise, a place that becomes free goes to the host with the fewest.

use std::collections::HashMap;

use crate::store::{NewWorkItem, Priority};

/// Maximum number of items of one repository in flight.
const PER_REPOSITORY: usize = 2;

/// Maximum number of items in flight of an owner of whom several repositories recently kept others waiting.
const PER_SLOW_OWNER: usize = 2;

/// Number of items that are claimed per place: the next ones start as soon as a place is free, while the database is
/// still recording the completion of the ones before.
const AHEAD: usize = 2;

/// Places of a worker, and their holders.
#[derive(Debug)]
pub(super) struct Shares {
    places: usize,
    per_repository: usize,
    per_slow_owner: usize,
    taken: usize,
    hosts: HashMap<String, Taken>,
    /// All hosts together that are not configured. Anyone with a name server has as many as they like.
    strangers: Taken,
    /// Number of places by host and owner.
    owners: HashMap<(String, String), usize>,
    /// Number of places by host and remote.
    repositories: HashMap<(String, String), usize>,
}

/// Number of places of one holder.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    all: usize,
    urgent: usize,
}

/// Returns whether items of this priority must not be held up by others.
pub(super) fn is_urgent(priority: Priority) -> bool {
    priority <= Priority::Webhook
}

impl Shares {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            per_repository: PER_REPOSITORY,
            per_slow_owner: PER_SLOW_OWNER,
            taken: 0,
            hosts: HashMap::new(),
            strangers: Taken::default(),
            owners: HashMap::new(),
            repositories: HashMap::new(),
        }
    }

    /// Creates the shares for claimed items, some of which still wait for one of the `places`.
    pub(super) fn ahead(places: usize) -> Self {
        Self {
            per_repository: PER_REPOSITORY * AHEAD,
            per_slow_owner: PER_SLOW_OWNER * AHEAD,
            ..Self::new(places * AHEAD)
        }
    }

    /// Returns the number of free places.
    pub(super) fn free(&self) -> usize {
        self.places.saturating_sub(self.taken)
    }

    /// Returns the number of free places that are not reserved for urgent items.
    pub(super) fn free_for_all(&self) -> usize {
        self.free().saturating_sub(self.kept())
    }

    /// Returns the number of places that are reserved for urgent items.
    fn kept(&self) -> usize {
        self.places / 4
    }

    /// Returns the number of places of a host.
    pub(super) fn of_host(&self, host: &str) -> usize {
        self.hosts.get(host).map_or(0, |taken| taken.all)
    }

    /// Returns whether a host has a place with an item that is not urgent.
    pub(super) fn has_patient(&self, host: &str) -> bool {
        let taken = self.hosts.get(host);
        taken.is_some_and(|taken| taken.all > taken.urgent)
    }

    /// Returns whether the hosts that are not configured hold all places that they may have.
    pub(super) fn is_full_of_strangers(&self) -> bool {
        self.strangers.all >= self.kept().max(1)
    }

    /// Returns whether a host may have another place for an item of this priority.
    pub(super) fn has_place(&self, host: &str, is_known: bool, priority: Priority) -> bool {
        let mine = if is_known {
            self.hosts.get(host).copied().unwrap_or_default()
        } else {
            self.strangers
        };
        if !is_known && self.is_full_of_strangers() {
            return false;
        }
        match self.free() {
            0 => false,
            free if free > self.kept() => true,
            1 => is_urgent(priority) && mine.urgent == 0,
            _ => is_urgent(priority) && mine.urgent < 2,
        }
    }

    /// Returns whether a repository may have another place.
    pub(super) fn has_place_for(&self, host: &str, repository: &str) -> bool {
        self.of_repository(host, repository) < self.per_repository
    }

    /// Returns the number of places of a repository.
    fn of_repository(&self, host: &str, repository: &str) -> usize {
        let name = (host.to_owned(), repository.to_owned());
        self.repositories.get(&name).copied().unwrap_or_default()
    }

    /// Returns the repositories of a host that hold all places that they may have.
    pub(super) fn full_of(&self, host: &str) -> Vec<String> {
        let full = self.repositories.iter();
        full.filter(|((at, _), taken)| at == host && **taken >= self.per_repository)
            .map(|((_, repository), _)| repository.clone())
            .collect()
    }

    /// Returns the number of places of an owner.
    fn of_owner(&self, host: &str, owner: &str) -> usize {
        let name = (host.to_owned(), owner.to_owned());
        self.owners.get(&name).copied().unwrap_or_default()
    }

    /// Returns whether an owner of whom several repositories keep others waiting may have another place.
    pub(super) fn has_place_for_slow(&self, host: &str, owner: &str) -> bool {
        self.of_owner(host, owner) < self.per_slow_owner
    }

    /// Takes a place.
    pub(super) fn take(
        &mut self,
        host: &str,
        (owner, repository): (&str, &str),
        is_known: bool,
        priority: Priority,
    ) {
        self.taken += 1;
        let urgent = usize::from(is_urgent(priority));
        let add = |taken: &mut Taken| {
            taken.all += 1;
            taken.urgent += urgent;
        };
        add(self.hosts.entry(host.to_owned()).or_default());
        if !is_known {
            add(&mut self.strangers);
        }
        let name = |name: &str| (host.to_owned(), name.to_owned());
        *self.repositories.entry(name(repository)).or_default() += 1;
        *self.owners.entry(name(owner)).or_default() += 1;
    }

    /// Takes a place for an item.
    pub(super) fn take_for(&mut self, item: &NewWorkItem, is_known: bool) {
        let (owner, remote) = (item.owner(), item.remote());
        self.take(&item.host, (&owner, &remote), is_known, item.priority);
    }

    /// Returns the index of the claimed item that starts next, if there is a place for any: the most urgent one, and
    /// among equals one whose owner, and then one whose repository, has the fewest places.
    pub(super) fn next<'i>(
        &self,
        ready: impl Iterator<Item = &'i NewWorkItem>,
        mut may_begin: impl FnMut(&Self, &NewWorkItem) -> bool,
    ) -> Option<usize> {
        let mut ready: Vec<(usize, &NewWorkItem)> = ready.enumerate().collect();
        ready.sort_by_cached_key(|(_, item)| {
            let of_owner = self.of_owner(&item.host, &item.owner());
            let of_repository = self.of_repository(&item.host, &item.remote());
            (item.priority, of_owner, of_repository)
        });
        let next = ready.into_iter().find(|(_, item)| may_begin(self, item));
        next.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use Priority::{Backfill, Firehose, Partner, Webhook};

    use super::super::pauses::tests::item;
    use super::*;

    /// Takes places for a host until it may have no more. Returns how many it got.
    fn get(shares: &mut Shares, host: &str, is_known: bool, priority: Priority) -> usize {
        let mut got = 0;
        while shares.has_place(host, is_known, priority) {
            shares.take(host, ("", &got.to_string()), is_known, priority);
            got += 1;
        }
        got
    }

    #[test]
    fn what_is_urgent_always_finds_a_place() {
        for flood in [Webhook, Firehose, Backfill] {
            let mut shares = Shares::new(8);
            assert_eq!(get(&mut shares, "a", true, flood), 6);
            assert_eq!(get(&mut shares, "b", true, Firehose), 0);
            assert_eq!(get(&mut shares, "b", true, Webhook), 1);
            assert_eq!(get(&mut shares, "c", true, Partner), 1);
            assert_eq!(get(&mut shares, "d", true, Partner), 0);
        }
        // The host that fills everything else gets one as well.
        let mut shares = Shares::new(8);
        get(&mut shares, "a", true, Firehose);
        assert_eq!(get(&mut shares, "a", true, Webhook), 1);
    }

    #[test]
    fn hosts_that_nobody_named_are_one() {
        let mut shares = Shares::new(8);
        let got: usize = (0..100)
            .map(|n| get(&mut shares, &format!("{n}.example"), false, Webhook))
            .sum();
        assert_eq!(got, 2);
    }

    #[test]
    fn a_repository_has_two_and_a_worker_of_one_place_works() {
        let mut shares = Shares::new(8);
        shares.take("a", ("", "1"), true, Webhook);
        assert!(shares.has_place_for("a", "1"));
        shares.take("a", ("", "1"), true, Webhook);
        assert!(!shares.has_place_for("a", "1") && shares.has_place_for("b", "1"));
        let mut single = Shares::new(1);
        assert_eq!(get(&mut single, "a", false, Backfill), 1);
    }

    #[test]
    fn of_an_owner_the_repository_with_the_fewest_places_begins_first() {
        let named = |repository: &str| NewWorkItem {
            repository: format!("acme/{repository}"),
            priority: Webhook,
            ..item("a", repository)
        };
        let mut shares = Shares::new(8);
        shares.take_for(&named("loud"), true);
        let ready = ["loud", "loud", "quiet"].map(named);
        assert_eq!(shares.next(ready.iter(), |_, _| true), Some(2));
    }

    #[test]
    fn whoever_has_the_fewest_places_begins_first() {
        let named = |owner: &str, repository: &str, priority| NewWorkItem {
            repository: format!("{owner}/{repository}"),
            priority,
            ..item("a", repository)
        };
        let mut shares = Shares::new(8);
        for n in 0..3 {
            shares.take_for(&named("Mallory", &n.to_string(), Firehose), true);
        }
        let ready = [
            named("mallory", "8", Firehose),
            named("alice", "9", Firehose),
            named("mallory", "7", Webhook),
        ];
        let next =
            |may: &dyn Fn(&NewWorkItem) -> bool| shares.next(ready.iter(), |_, item| may(item));
        assert_eq!(next(&|_| true), Some(2));
        assert_eq!(next(&|item| item.priority == Firehose), Some(1));
        assert_eq!(next(&|item| item.repository == "mallory/8"), Some(0));
        assert_eq!(next(&|_| false), None);
    }
}
