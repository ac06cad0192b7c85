//! Demand for the places of a worker, as seen by the items that hold them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::pauses::Condition;
use super::shares::{Shares, is_urgent};
use super::{Shared, Worker};
use crate::fetch::{Demand, Waiting};
use crate::store::{Lane, NewWorkItem, WorkItem};

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
    own: Mutex<HashMap<(String, String), Arc<Demand>>>,
}

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
    /// them keep others waiting.
    pub(super) fn of_own(&self, lane: Lane, host: &str, owner: &str) -> Vec<Arc<Demand>> {
        if lane != Lane::Ordinary {
            return Vec::new();
        }
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |owner: &str| (host.to_owned(), owner.to_owned());
        let names = [of(""), of(owner)];
        names
            .map(|name| Arc::clone(own.entry(name).or_default()))
            .into()
    }

    /// Sets the demand by others of each host, given an empty name, and of each owner.
    pub(super) fn set_own(&self, waiting: impl Fn(&str, &str) -> Waiting) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|_, demand| Arc::strong_count(demand) > 1);
        for ((host, owner), demand) in own.iter() {
            demand.set(waiting(host, owner));
        }
    }
}

impl Worker {
    /// Informs the holders of ordinary places who is waiting for them: items that are held up by others, rather than
    /// by the share of their own repository.
    pub(super) fn tell_who_waits(&self, shares: &Shares, ready: &VecDeque<WorkItem>) {
        let (mut known, mut strangers) = (Waiting::Nobody, Waiting::Nobody);
        for item in ready {
            let NewWorkItem { host, priority, .. } = &item.range;
            let is_own_fault = !shares.has_place_for(host, &item.range.remote())
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
            if self.knows(host) || !shares.is_full_of_strangers() {
                known = known.max(waiting);
            }
        }
        let Shared {
            demands,
            pauses,
            slow,
            ..
        } = &*self.shared;
        demands.of(Lane::Ordinary, true).set(known);
        demands.of(Lane::Ordinary, false).set(strangers);
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
