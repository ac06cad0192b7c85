//! How many connections there may be, whose, and which of them have to go when others come.
//!
//! Whoever comes when all places are taken gets the one of a connection for whose client the server waits. Those
//! over which nothing genuine came yet go first, even if they were answered a moment ago: with small requests again
//! and again anybody can hold a connection, and a healthy client loses nothing but a handshake. Then those that stall,
//! the longest first; failing that, one of the client that has by far the most. When nobody can be asked to go, there
//! is a place for a moment, in which the server says that it lives, and to everything else to come again later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::client::{TrustedProxies, counted_as};
use super::pulse::{Pulse, millis};

/// The most connections at once.
pub const MOST_CONNECTIONS: usize = 2048;

/// The most places for a moment besides the ordinary ones.
pub const MOMENTARY_CONNECTIONS: usize = 64;

/// The part of all connections that one client may have.
const SHARE_OF_ONE: usize = 4;

/// How long the server has to have waited for a client before its connection makes room for another one, if it has
/// an unfinished request or has proved itself.
const IDLE: Duration = Duration::from_secs(1);

/// The part of all connections that make room at a time: looking for them looks at all of them.
const BATCH: usize = 128;

/// The most connections of one client that are no crowd.
const MODEST: usize = 2;

/// How often somebody without a place looks for one.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many connections every client may have, however few there are in all.
const FEW: usize = 8;

/// How many connections there may be, and who speaks for others.
#[derive(Debug, Clone)]
pub struct Connections {
    /// The most at once.
    pub most: usize,
    /// How many more there may be for a moment.
    pub momentary: usize,
    /// Their connections are those of many clients.
    pub proxies: TrustedProxies,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            most: MOST_CONNECTIONS,
            momentary: MOMENTARY_CONNECTIONS,
            proxies: TrustedProxies::default(),
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Places {
    options: Connections,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: HashMap<u64, Taken>,
    /// How many ordinary places each client has.
    clients: HashMap<IpAddr, usize>,
    ordinary: usize,
}

#[derive(Debug)]
struct Taken {
    /// `None`: nobody that a limit holds.
    client: Option<IpAddr>,
    is_momentary: bool,
    pulse: Arc<Pulse>,
    close: CancellationToken,
}

/// The loss of a client that has to connect again, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Nothing that it used.
    Stalled,
    /// A handshake: no request is under way.
    Handshake,
    /// A connection that serves, though not at present.
    Proved,
}

/// A connection's place. Free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    is_momentary: AtomicBool,
    /// What the client does.
    pub(super) pulse: Arc<Pulse>,
    /// Cancelled when the connection has to make room.
    pub(super) close: CancellationToken,
}

impl Places {
    pub(super) fn new(options: Connections) -> Arc<Self> {
        Arc::new(Self {
            options,
            began: Instant::now(),
            state: Mutex::default(),
        })
    }

    /// Who may speak for others.
    pub(super) fn proxies(&self) -> &TrustedProxies {
        &self.options.proxies
    }

    /// A place for a connection of `peer`.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Place {
        let client = self.counted(peer);
        let mut state = self.lock();
        let is_momentary = !self.make_way(&mut state, client);
        if is_momentary && state.taken.len() - state.ordinary >= self.options.momentary.max(1) {
            let momentary = state.taken.iter().filter(|(_, taken)| taken.is_momentary);
            if let Some(oldest) = momentary.map(|(id, _)| *id).min() {
                state.remove(oldest);
            }
        }
        let id = state.next;
        state.next += 1;
        let pulse = Arc::new(Pulse::new(self.began));
        let close = CancellationToken::new();
        let taken = Taken {
            client,
            is_momentary,
            pulse: Arc::clone(&pulse),
            close: close.clone(),
        };
        state.add(id, taken);
        drop(state);
        Place {
            places: Arc::clone(self),
            id,
            is_momentary: AtomicBool::new(is_momentary),
            pulse,
            close,
        }
    }

    /// Whether there is an ordinary place for a connection of this client, once somebody has made room for it.
    fn make_way(&self, state: &mut State, client: Option<IpAddr>) -> bool {
        let most = self.options.most;
        let most_of_one = (most / SHARE_OF_ONE).max(FEW);
        let of_client = client.map_or(0, |client| state.of(client));
        let now = self.now();
        let leave = if of_client >= most_of_one {
            // Its own have to go.
            state.dispensable(now, 1, |taken| taken.client == client)
        } else if state.ordinary >= most {
            let some = state.dispensable(now, (most / BATCH).max(1), |_| true);
            if some.is_empty() {
                Vec::from_iter(state.of_the_greediest(of_client))
            } else {
                some
            }
        } else {
            return true;
        };
        let is_way_made = !leave.is_empty();
        for id in leave {
            state.remove(id);
        }
        is_way_made && state.ordinary < most
    }

    /// Closes what can best be spared, for when the operating system gives no further connection.
    pub(super) fn make_room(&self) {
        let now = self.now();
        let mut state = self.lock();
        for id in state.dispensable(now, (self.options.most / BATCH).max(1), |_| true) {
            state.remove(id);
        }
    }

    /// Returns whether places are becoming scarce, so that none should be held without need.
    pub(super) fn are_scarce(&self) -> bool {
        self.lock().ordinary > self.options.most / 4 * 3
    }

    /// What the connections of a peer are counted by. Those of proxies are not one client's, and those from the
    /// machine itself are a proxy's, or of somebody who could stop the server as well.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        let is_exempt = peer.is_loopback() || self.options.proxies.contains(peer);
        (!is_exempt).then(|| counted_as(peer))
    }

    fn now(&self) -> u64 {
        millis(self.began)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether in this place the server only says how it is.
    pub(super) fn is_momentary(&self) -> bool {
        self.is_momentary.load(Ordering::Relaxed)
    }

    /// Waits for an ordinary place; whether there was one in time, and before others needed this one.
    pub(super) async fn promoted(&self, patience: Duration) -> bool {
        let began = Instant::now();
        while !self.promote() {
            if self.close.is_cancelled() || began.elapsed() >= patience {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.close.cancelled() => {}
            }
        }
        true
    }

    /// Returns whether the connection had better end with the present answer.
    pub(super) fn should_end(&self) -> bool {
        !self.pulse.is_proved() && self.places.are_scarce()
    }

    fn promote(&self) -> bool {
        let mut state = self.places.lock();
        let Some(taken) = state.taken.get(&self.id) else {
            return false;
        };
        let client = taken.client;
        if !self.places.make_way(&mut state, client) {
            return false;
        }
        if let Some(mut taken) = state.forget(self.id) {
            taken.is_momentary = false;
            state.add(self.id, taken);
        }
        self.is_momentary.store(false, Ordering::Relaxed);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().forget(self.id);
    }
}

impl State {
    fn of(&self, client: IpAddr) -> usize {
        self.clients.get(&client).copied().unwrap_or(0)
    }

    fn add(&mut self, id: u64, taken: Taken) {
        if !taken.is_momentary {
            self.ordinary += 1;
            if let Some(client) = taken.client {
                *self.clients.entry(client).or_default() += 1;
            }
        }
        self.taken.insert(id, taken);
    }

    /// Ends a connection. Its place is free at once, a moment before the connection is.
    fn remove(&mut self, id: u64) -> bool {
        let taken = self.forget(id);
        taken.inspect(|taken| taken.close.cancel()).is_some()
    }

    fn forget(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        if taken.is_momentary {
            return Some(taken);
        }
        self.ordinary -= 1;
        if let Some(client) = taken.client
            && let Some(count) = self.clients.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
        Some(taken)
    }

    /// Up to so many connections that can best be spared.
    fn dispensable(&self, now: u64, most: usize, eligible: impl Fn(&Taken) -> bool) -> Vec<u64> {
        let taken = self.taken.iter();
        let taken = taken.filter(|(_, taken)| !taken.is_momentary && eligible(taken));
        let mut some: Vec<_> = taken
            .filter_map(|(id, taken)| Some((self.worth(taken, now)?, *id)))
            .collect();
        if some.len() > most {
            some.select_nth_unstable(most);
            some.truncate(most);
        }
        some.into_iter().map(|(_, id)| id).collect()
    }

    /// Returns what is lost with a connection for whose client the server waits, and whom: the last have the least. `None`: it
    /// is not to go.
    fn worth(&self, taken: &Taken, now: u64) -> Option<(Worth, bool, u64)> {
        let pulse = &taken.pulse;
        if !pulse.is_waiting() {
            return None;
        }
        let last = pulse.last();
        let is_idle = Duration::from_millis(now.saturating_sub(last)) >= IDLE;
        let worth = match (pulse.is_proved(), pulse.has_request()) {
            (true, _) if is_idle => Worth::Proved,
            (false, _) if is_idle => Worth::Stalled,
            (false, false) => Worth::Handshake,
            _ => return None,
        };
        let is_of_crowd = taken.client.is_some_and(|client| self.of(client) > MODEST);
        Some((worth, !is_of_crowd, last))
    }

    /// The idlest connection of the client that has by far the most, if that is not the newcomer.
    fn of_the_greediest(&self, of_newcomer: usize) -> Option<u64> {
        let (client, count) = self.clients.iter().max_by_key(|(_, count)| **count)?;
        if *count <= FEW.max(2 * (of_newcomer + 1)) {
            return None;
        }
        let theirs = self.taken.iter();
        let theirs =
            theirs.filter(|(_, taken)| !taken.is_momentary && taken.client == Some(*client));
        let idlest =
            theirs.min_by_key(|(_, taken)| (!taken.pulse.is_waiting(), taken.pulse.last()));
        idlest.map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests;
