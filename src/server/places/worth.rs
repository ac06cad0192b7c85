//! Which connection can best be spared.

use std::cmp::Reverse;
use std::time::Duration;

use super::{FEW, State, Taken};

/// How long the server has to have waited for a client before its connection makes room for another one, if it has
/// an unfinished request or has proved itself.
const IDLE: Duration = Duration::from_secs(1);

/// The same, if it has proved itself and would else take the place of somebody who has not been served yet.
const BETWEEN: Duration = Duration::from_millis(100);

/// How long a connection may be without a request before it is one that nothing is expected of.
const GRACE: Duration = Duration::from_secs(2);

/// The part of all connections that may be so young and make no room for others all the same.
const YOUNG: usize = 8;

/// The most connections of one client that are no crowd.
pub(super) const MODEST: usize = 2;

/// The loss of a client that has to connect again, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Nothing that it used.
    Stalled,
    /// A handshake: no request is under way, or was due.
    Handshake,
    /// One of many connections, which is idle.
    OneOfMany,
    /// A request that may be on its way, among very many.
    OfFlood,
    /// A connection that serves, though not at present.
    Proved,
    /// The same, which served a moment ago.
    Served,
    /// A request that may be on its way.
    Young,
}

/// How soon a connection goes: the smallest first. What it is worth, how many its client has, and when something
/// moved.
type Rank = (Worth, Reverse<usize>, u64);

impl State {
    /// Up to `at_once` connections that can best be spared when there may be `most`, the best first.
    pub(super) fn dispensable(
        &self,
        now: u64,
        most: usize,
        at_once: usize,
        eligible: impl Fn(&Taken) -> bool,
    ) -> Vec<(Worth, u64)> {
        let is_flood = self.young(now) > (most / YOUNG).max(1);
        let taken = self.taken.iter();
        let mut some: Vec<_> = taken
            .filter(|(_, taken)| !taken.is_momentary && eligible(taken))
            .filter_map(|(id, taken)| Some((self.rank(taken, now, is_flood)?, *id)))
            .collect();
        if some.len() > at_once {
            some.select_nth_unstable(at_once);
            some.truncate(at_once);
        }
        some.sort_unstable();
        some.into_iter()
            .map(|((worth, ..), id)| (worth, id))
            .collect()
    }

    /// Returns how many have just connected.
    pub(super) fn young(&self, now: u64) -> usize {
        let taken = self.taken.values();
        let young = taken.filter(|taken| !taken.is_momentary && taken.is_young(now));
        young.count()
    }

    /// Returns how soon a connection goes, if its client is the one that is waited for.
    fn rank(&self, taken: &Taken, now: u64, is_flood: bool) -> Option<Rank> {
        let pulse = &taken.pulse;
        if !pulse.is_waiting() {
            return None;
        }
        let last = pulse.last();
        let still = Duration::from_millis(now.saturating_sub(last));
        let is_idle = still >= IDLE;
        let of_client = self.of(taken.client);
        let is_of_crowd = of_client > MODEST;
        // What comes over a proxy's connection is somebody else's, who is slow at his own cost only.
        let is_at_leisure = taken.is_limited || !pulse.has_request();
        let worth = match (pulse.is_proved(), pulse.has_request()) {
            (true, _) if is_idle && is_of_crowd && is_at_leisure => Worth::OneOfMany,
            (true, _) if is_idle => Worth::Proved,
            (true, false) if still >= BETWEEN => Worth::Served,
            (false, false) if taken.is_young(now) && is_flood => Worth::OfFlood,
            (false, false) if taken.is_young(now) => Worth::Young,
            (false, _) if is_idle => Worth::Stalled,
            (false, false) => Worth::Handshake,
            _ => return None,
        };
        let many = match worth {
            Worth::OneOfMany => of_client,
            _ => usize::from(is_of_crowd),
        };
        Some((worth, Reverse(many), last))
    }

    /// Returns the idlest connection of the client that has by far the most, if that is not the newcomer, and whether
    /// it is the client that is waited for.
    pub(super) fn of_the_greediest(&self, of_newcomer: usize) -> Option<(bool, u64)> {
        let limited = self.taken.values().filter(|taken| taken.is_limited);
        let greediest = limited.map(|taken| (self.of(taken.client), taken.client));
        let (count, client) = greediest.max()?;
        if count <= FEW.max(2 * (of_newcomer + 1)) {
            return None;
        }
        let theirs = self.taken.iter();
        let theirs = theirs.filter(|(_, taken)| !taken.is_momentary && taken.client == client);
        let idlest =
            theirs.min_by_key(|(_, taken)| (!taken.pulse.is_waiting(), taken.pulse.last()));
        idlest.map(|(id, taken)| (taken.pulse.is_waiting(), *id))
    }
}

impl Taken {
    /// Whether its first request may well be on its way.
    fn is_young(&self, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(self.since));
        age < GRACE && !self.pulse.had_request() && !self.pulse.is_proved()
    }
}
