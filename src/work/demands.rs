//! Demand for the places of a worker, as seen by the items that hold them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pauses::Condition;
use super::shares::{Shares, is_urgent};
use super::{Shared, Worker};
use crate::fetch::{Demand, Waiting};
use crate::store::{Lane, NewWorkItem, Priority, WorkItem};

/// Demand for the places of a worker.
#[derive(Debug, Default)]
pub(super) struct Demands {
    /// Demand for ordinary places by hosts that the configuration names.
    known: Arc<Demand>,
    /// Demand for ordinary places by all other hosts, which share only a few of them.
    strangers: Arc<Demand>,
    alone: Arc<Demand>,
    /// Always empty: for lanes that account for time instead.
    none: Arc<Demand>,
    /// Demand for ordinary places by others of the same host, under an empty name, or of the same owner. Only of those
    /// that have such places.
    own: Mutex<ByName>,
    /// Demand for ordinary places by others of the same repository, by host and remote. Only of those that have such
    /// places.
    repositories: Mutex<ByName>,
    /// Demand for ordinary places by other hosts, by host and an empty name. Only of those that have such places.
    others: Mutex<ByName>,
}

/// Demand by host and another name.
type ByName = HashMap<(String, String), Arc<Demand>>;

impl Demands {
    /// Returns the demand for a place like the one of an item in this lane.
    pub(super) fn of(&self, lane: Lane, is_known: bool) -> &Arc<Demand> {
        match lane {
            Lane::Ordinary if is_known => &self.known,
            Lane::Ordinary => &self.strangers,
            Lane::Medium | Lane::Large => &self.none,
            Lane::Alone => &self.alone,
        }
    }

    /// Returns the demand for an ordinary place by others of its host and owner, who have few places while many of
    /// them keep others waiting, and of its repository, which never has more than a few.
    pub(super) fn of_own(&self, item: &WorkItem) -> Vec<Arc<Demand>> {
        if item.lane != Lane::Ordinary {
            return Vec::new();
        }
        let (host, owner) = (&item.range.host, item.range.owner());
        let get = |of: &Mutex<ByName>, named: &str| {
            let name = (host.clone(), named.to_owned());
            Arc::clone(lock(of).entry(name).or_default())
        };
        vec![
            get(&self.own, ""),
            get(&self.own, &owner),
            get(&self.repositories, &item.range.remote()),
        ]
    }

    /// Returns the demand for an ordinary place of a host by others.
    pub(super) fn of_others(&self, host: &str) -> Arc<Demand> {
        let name = (host.to_owned(), String::new());
        Arc::clone(lock(&self.others).entry(name).or_default())
    }

    /// Returns whether nobody but others of its repository wants the ordinary place of an item.
    pub(super) fn is_of_repository_only(&self, item: &NewWorkItem) -> bool {
        let name = |named: String| (item.host.clone(), named);
        let is_wanted = |of: &Mutex<ByName>, name: &(String, String)| {
            let of = lock(of);
            of.get(name).is_some_and(|demand| is_demand(demand))
        };
        let is_of_others = is_demand(&self.known) || is_demand(&self.strangers);
        is_wanted(&self.repositories, &name(item.remote()))
            && !is_of_others
            && !is_wanted(&self.own, &name(String::new()))
            && !is_wanted(&self.own, &name(item.owner()))
    }

    /// Sets the demand by others of each host, given an empty name, and of each owner.
    pub(super) fn set_own(&self, waiting: impl Fn(&str, &str) -> Waiting) {
        set(&self.own, waiting);
    }

    /// Sets the demand by others than each host.
    fn set_of_others(&self, waiting: impl Fn(&str) -> Waiting) {
        set(&self.others, |host, _| waiting(host));
    }

    /// Sets the demand by others of each repository, given by host and remote.
    fn set_of_repositories(&self, waiting: impl Fn(&str, &str) -> Waiting) {
        set(&self.repositories, waiting);
    }
}

fn lock(of: &Mutex<ByName>) -> MutexGuard<'_, ByName> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_demand(demand: &Demand) -> bool {
    demand.waiting() > Waiting::Nobody
}

fn set(of: &Mutex<ByName>, waiting: impl Fn(&str, &str) -> Waiting) {
    let mut of = lock(of);
    of.retain(|_, demand| Arc::strong_count(demand) > 1);
    for ((host, named), demand) in of.iter() {
        demand.set(waiting(host, named));
    }
}

impl Worker {
    /// Informs the holders of ordinary places, once this worker is replaced, that somebody waits for each of them: whoever
    /// does is claimed by the next worker, which cannot tell them.
    pub(super) fn tell_that_all_wait(&self) {
        let demands = &self.shared.demands;
        demands.of(Lane::Ordinary, true).set(Waiting::Somebody);
        demands.of(Lane::Ordinary, false).set(Waiting::Somebody);
        demands.set_of_others(|_| Waiting::Somebody);
    }

    /// Informs the holders of ordinary places who is waiting for them: items that are held up by others. Those that are
    /// held up by the share of their own repository are the affair of its holders alone, and never urgent: a burst of
    /// pushes to a repository whose packs take seconds to put together is read faster in ordinary places.
    pub(super) fn tell_who_waits(&self, shares: &Shares, ready: &VecDeque<WorkItem>) {
        let (mut known, mut strangers) = (Waiting::Nobody, Waiting::Nobody);
        let mut of_repositories = HashSet::new();
        let mut of_hosts: HashMap<&str, (Waiting, bool)> = HashMap::new();
        for item in ready {
            let NewWorkItem { host, priority, .. } = &item.range;
            let remote = item.range.remote();
            let is_full = !shares.has_place_for(host, &remote);
            // The parts of a large push do not hurry one another: each would be fetched anew.
            if is_full && *priority < Priority::Backfill {
                of_repositories.insert((host.clone(), remote));
            }
            let is_own_fault = is_full
                || !self.has_place_for_owner(shares, host, &item.range.owner())
                || self.shared.pauses.condition(host) == Condition::Unreachable;
            if is_own_fault {
                continue;
            }
            let waiting = if is_urgent(*priority) {
                Waiting::Urgently
            } else {
                Waiting::Somebody
            };
            strangers = strangers.max(waiting);
            let is_for_known = self.knows(host) || !shares.is_full_of_strangers();
            if is_for_known {
                known = known.max(waiting);
            }
            let (of_host, _) = of_hosts.entry(host).or_insert((waiting, is_for_known));
            *of_host = waiting.max(*of_host);
        }
        let Shared {
            demands,
            pauses,
            slow,
            ..
        } = &*self.shared;
        demands.of(Lane::Ordinary, true).set(known);
        demands.of(Lane::Ordinary, false).set(strangers);
        demands.set_of_others(|host| {
            let is_known = self.knows(host);
            let others = of_hosts.iter();
            let others = others
                .filter(|(of, (_, is_for_known))| **of != host && (*is_for_known || !is_known));
            let others = others.map(|(_, (waiting, _))| *waiting).max();
            others.unwrap_or_default()
        });
        demands.set_of_repositories(|host, remote| {
            let name = (host.to_owned(), remote.to_owned());
            if of_repositories.contains(&name) {
                Waiting::Somebody
            } else {
                Waiting::Nobody
            }
        });
        // Whoever has few places for such a reason may have others waiting that are healthy, and are not claimed.
        demands.set_own(|host, owner| {
            let is_hurried = if owner.is_empty() {
                pauses.condition(host) == Condition::Silent
            } else {
                slow.is_slow_owner(host, owner)
            };
            if is_hurried {
                Waiting::Urgently
            } else {
                Waiting::Nobody
            }
        });
    }
}
