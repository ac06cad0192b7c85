//! State that a worker keeps from one round of claiming to the next.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;
use uuid::Uuid;

use super::front::Turns;
use crate::store::Lane;

/// Maximum number of entries in the history of hosts that had places in the scarce lanes.
const SERVED_MAX: usize = 48;

/// State of the last round, so that the next one starts elsewhere.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) number: usize,
    /// Last host that was returned for each lane, if there were more.
    pub(super) after: HashMap<Lane, String>,
    /// Hosts that had a place in one of the other lanes, most recent last. All hosts that are not configured count as
    /// one.
    served: VecDeque<(Lane, String)>,
    /// Time of the last look for items in the other lanes; `None` if there may be some.
    pub(super) looked: Option<Instant>,
    /// Time when an item that had to leave last took precedence because it was due.
    pub(super) due: Option<Instant>,
    /// Number of places in the other lanes that were given.
    pub(super) given: usize,
    /// Turns of the newest items and of those that have waited the longest, where only few are taken.
    pub(super) turns: Turns,
    /// Time of the last look for what is polled of a host, which gets a place ahead of what is more urgent.
    pub(super) lent_at: Option<Instant>,
    /// Items that were claimed for that, and are not begun yet.
    pub(super) lent: HashSet<Uuid>,
    /// Items that were claimed of hosts in trouble, to see whether they are well again, and are not begun yet.
    pub(super) probes: HashSet<Uuid>,
}

impl Round {
    /// Requests a look at the other lanes, after an item moved to one.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    /// Records that a host has a place in a lane.
    pub(super) fn note_served(&mut self, lane: Lane, host: &str) {
        self.served.retain(|served| !is_of(served, lane, host));
        self.served.push_back((lane, host.to_owned()));
        self.given = self.given.wrapping_add(1);
        if self.served.len() > SERVED_MAX {
            self.served.pop_front();
        }
    }

    /// Returns how recently a host had a place in a lane, as an index that grows with recency. `None`, which sorts
    /// before all others, means not recently.
    pub(super) fn served(&self, lane: Lane, host: &str) -> Option<usize> {
        self.served
            .iter()
            .position(|served| is_of(served, lane, host))
    }
}

fn is_of(served: &(Lane, String), lane: Lane, host: &str) -> bool {
    served.0 == lane && served.1 == host
}
