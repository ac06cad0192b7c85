//! Selection of the connections that can best be spared.

use std::cmp::Reverse;
use std::time::Duration;

use super::{FEW, State, Taken};

/// Time for which the server has to have waited for a client before its connection makes room for another one, if it
/// has an unfinished request or has proved itself.
const IDLE: Duration = Duration::from_secs(1);

/// Same, for a connection that has proved itself and would otherwise take the place of one that has not been served
/// yet.
const BETWEEN: Duration = Duration::from_millis(100);

/// Age up to which a connection may be without a request before nothing more is expected of it.
const GRACE: Duration = Duration::from_secs(2);

/// Fraction (one in `YOUNG`) of all connections that may be that young and still need not make room for others.
///
/// Half of them: what is closed for their sake has had its answer, and reconnects at the cost of a handshake.
const YOUNG: usize = 2;

/// Maximum number of connections of one client that do not count as a crowd.
pub(super) const MODEST: usize = 2;

/// Cost to the client of having to reconnect, the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// No cost: the connection is stalled.
    Stalled,
    /// No cost but a handshake: no request is in flight or expected.
    Handshake,
    /// An idle connection, one of many of the same client.
    OneOfMany,
    /// A request that may be on its way, among very many.
    OfFlood,
    /// An idle connection that has proved itself.
    Proved,
    /// A connection that has proved itself and was served a moment ago.
    Served,
    /// A request that may be on its way.
    Young,
}

/// Order in which connections go, the smallest first: the worth, the number of the client's connections (the most
/// first), and the time of the last progress in milliseconds since the server began.
type Rank = (Worth, Reverse<usize>, u64);

impl State {
    /// Returns up to `at_once` connections that can best be spared when at most `most` are allowed, the best first.
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

    /// Returns the number of connections whose first request may be on its way.
    pub(super) fn young(&self, now: u64) -> usize {
        let taken = self.taken.values();
        let young = taken.filter(|taken| !taken.is_momentary && taken.is_young(now));
        young.count()
    }

    /// Returns the rank of a connection, or `None` if it cannot be spared.
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
        // A proxy's connection carries the requests of other clients: a slow one is slow at its own cost only.
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

    /// Returns the idlest connection of the client with by far the most connections, unless that is the newcomer, and
    /// whether the server is waiting for that client.
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
    /// Returns whether the first request of the connection may well be on its way.
    fn is_young(&self, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(self.since));
        age < GRACE && !self.pulse.had_request() && !self.pulse.is_proved()
    }
}
