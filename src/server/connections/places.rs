//! Places for connections: their number, each client's share, and the order in which they make room for others.
//!
//! A newcomer that finds all places taken gets the place of a connection for whose client the server is waiting.
//! Stalled connections, and those over which nothing genuine has come yet, go first, even if they were answered a
//! moment ago: anybody can hold a connection with one small request after another, and a healthy client loses nothing
//! but a handshake. Next are idle connections of clients that have more than a few, those of the client with the most
//! first, then those that have been idle the longest. Having sent something genuine protects a few connections of a
//! client, not hundreds, and those only while they are in use.
//!
//! A connection that has just been established is not closed for the next newcomer, since its request is on its way.
//! Only when there are very many of them do they make room for one another, the oldest first. Failing all that, a
//! connection of the client with by far the most goes. If none can be closed, the newcomer gets a momentary place, in
//! which the server answers health checks and tells every other request to try again later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::client::{TrustedProxies, counted_as};
use super::pulse::{Pulse, millis};
use crate::memory;
use worth::{MODEST, Worth};

mod worth;

/// Default maximum number of connections.
pub const MOST_CONNECTIONS: usize = memory::CONNECTIONS;

/// Default maximum number of momentary places, in addition to the ordinary ones.
pub const MOMENTARY_CONNECTIONS: usize = memory::MOMENTARY_CONNECTIONS;

/// Fraction (one in `SHARE_OF_ONE`) of all connections that one client may have.
const SHARE_OF_ONE: usize = 4;

/// Fraction (one in `BATCH`) of all connections that are closed at a time: the search for them scans all connections.
const BATCH: usize = 128;

/// Interval at which a connection in a momentary place looks for an ordinary one.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Number of connections that every client may have, however few there are in all.
const FEW: usize = 8;

/// Limits on connections, and the proxies that forward requests of others.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Maximum number of connections.
    pub most: usize,
    /// Maximum number of further connections that are kept for a moment.
    pub momentary: usize,
    /// Proxies whose connections carry requests of many clients.
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

/// Places of all connections.
#[derive(Debug)]
pub(in crate::server) struct Places {
    options: Connections,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: HashMap<u64, Taken>,
    /// Number of ordinary places held by each client, or by each peer that forwards requests of others.
    clients: HashMap<IpAddr, usize>,
    ordinary: usize,
}

#[derive(Debug)]
struct Taken {
    client: IpAddr,
    /// `false` for connections from the machine itself and from proxies.
    is_limited: bool,
    is_momentary: bool,
    /// Time of the connection, in milliseconds since the server began.
    since: u64,
    pulse: Arc<Pulse>,
    close: CancellationToken,
}

/// Place of one connection. Released on drop.
#[derive(Debug)]
pub(in crate::server) struct ConnectionPlace {
    places: Arc<Places>,
    id: u64,
    is_momentary: AtomicBool,
    /// Progress of the client.
    pub(in crate::server) pulse: Arc<Pulse>,
    /// Canceled when the connection has to make room.
    pub(in crate::server) close: CancellationToken,
}

impl Places {
    pub(in crate::server) fn new(options: Connections) -> Arc<Self> {
        Arc::new(Self {
            options,
            began: Instant::now(),
            state: Mutex::default(),
        })
    }

    /// Returns the proxies that may speak for others.
    pub(in crate::server) fn proxies(&self) -> &TrustedProxies {
        &self.options.proxies
    }

    /// Returns a place for a connection from `peer`, momentary if there is no ordinary one.
    pub(in crate::server) fn admit(self: &Arc<Self>, peer: IpAddr) -> ConnectionPlace {
        let (client, is_limited) = self.counted(peer);
        let mut state = self.lock();
        let is_momentary = !self.make_way(&mut state, client, is_limited);
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
            is_limited,
            is_momentary,
            since: self.now(),
            pulse: Arc::clone(&pulse),
            close: close.clone(),
        };
        state.add(id, taken);
        drop(state);
        ConnectionPlace {
            places: Arc::clone(self),
            id,
            is_momentary: AtomicBool::new(is_momentary),
            pulse,
            close,
        }
    }

    /// Returns whether there is an ordinary place for a connection of this client, closing another connection if need
    /// be.
    fn make_way(&self, state: &mut State, client: IpAddr, is_limited: bool) -> bool {
        let most = self.options.most;
        let most_of_one = (most / SHARE_OF_ONE).max(FEW);
        let of_client = if is_limited { state.of(client) } else { 0 };
        let is_way_made = if of_client >= most_of_one {
            // The client's own connections have to go.
            let own = state.dispensable(self.now(), most, 1, |taken| taken.client == client);
            state.remove_all(&own)
        } else if state.ordinary >= most {
            self.make_room_in(state, of_client)
        } else {
            return true;
        };
        is_way_made && state.ordinary < most
    }

    /// Closes the connections that can best be spared, for use when the operating system accepts no further ones.
    pub(in crate::server) fn make_room(&self) {
        self.make_room_in(&mut self.lock(), 0);
    }

    /// Closes connections for a newcomer whose client has `of_newcomer` of them. Returns whether any was closed.
    fn make_room_in(&self, state: &mut State, of_newcomer: usize) -> bool {
        let most = self.options.most;
        let now = self.now();
        let mut some = state.dispensable(now, most, (most / BATCH).max(1), |_| true);
        let more = some.partition_point(|(worth, _)| *worth < Worth::Served);
        let more = some.split_off(more);
        if state.remove_all(&some) {
            return true;
        }
        let greedy = state.of_the_greediest(of_newcomer);
        let waiting = greedy.filter(|(is_waiting, _)| *is_waiting);
        let spared = if state.young(now) > 0 {
            // No connection that has not been served yet is closed while there is one that has.
            let served = more.iter().find(|(worth, _)| *worth == Worth::Served);
            let served = served.map(|(_, id)| *id);
            let young = more.first().map(|(_, id)| *id);
            served.or(waiting.map(|(_, id)| id)).or(young)
        } else {
            None
        };
        let one = spared.or(greedy.map(|(_, id)| id));
        one.is_some_and(|id| state.remove(id))
    }

    /// Returns whether places are becoming scarce, so that none should be held without need.
    pub(in crate::server) fn are_scarce(&self) -> bool {
        self.lock().ordinary > self.options.most / 4 * 3
    }

    /// Returns the address that connections of a peer are counted by, and whether they are limited. Those of proxies
    /// belong to many clients; those from the machine itself are a proxy's, or of somebody who could stop the server as
    /// well.
    fn counted(&self, peer: IpAddr) -> (IpAddr, bool) {
        let peer = peer.to_canonical();
        let is_exempt = peer.is_loopback() || self.options.proxies.contains(peer);
        (counted_as(peer), !is_exempt)
    }

    fn now(&self) -> u64 {
        millis(self.began)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPlace {
    /// Returns whether the place is momentary, so that only health checks are answered in it.
    pub(in crate::server) fn is_momentary(&self) -> bool {
        self.is_momentary.load(Ordering::Relaxed)
    }

    /// Waits for an ordinary place. Returns whether one was found within `patience`, and before others needed this one.
    pub(in crate::server) async fn promoted(&self, patience: Duration) -> bool {
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

    /// Returns whether the connection should be closed after the current answer.
    pub(in crate::server) fn should_end(&self) -> bool {
        !self.pulse.is_proved() && self.places.are_scarce()
    }

    fn promote(&self) -> bool {
        let mut state = self.places.lock();
        let Some(taken) = state.taken.get(&self.id) else {
            return false;
        };
        let (client, is_limited) = (taken.client, taken.is_limited);
        if !self.places.make_way(&mut state, client, is_limited) {
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

impl Drop for ConnectionPlace {
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
            *self.clients.entry(taken.client).or_default() += 1;
        }
        self.taken.insert(id, taken);
    }

    /// Closes a connection. Its place is free at once, a moment before the connection is gone.
    fn remove(&mut self, id: u64) -> bool {
        let taken = self.forget(id);
        taken.inspect(|taken| taken.close.cancel()).is_some()
    }

    /// Closes connections, keeping a few of each client whose connections go for being many. Returns whether any was
    /// closed.
    fn remove_all(&mut self, some: &[(Worth, u64)]) -> bool {
        let mut is_any = false;
        for (worth, id) in some {
            let client = self.taken.get(id).map(|taken| taken.client);
            let are_few = client.is_none_or(|client| self.of(client) <= MODEST);
            if *worth != Worth::OneOfMany || !are_few {
                is_any |= self.remove(*id);
            }
        }
        is_any
    }

    fn forget(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        if taken.is_momentary {
            return Some(taken);
        }
        self.ordinary -= 1;
        if let Some(count) = self.clients.get_mut(&taken.client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&taken.client);
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests;
