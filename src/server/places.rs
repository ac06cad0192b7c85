//! How many connections there may be, whose, and which of them have to go when others come.
//!
//! Whoever comes when all places are taken gets the one of a connection for whose client the server waits. Those
//! that stall, and over which nothing genuine came yet, go first, even if they were answered a moment ago: with small
//! requests again and again anybody can hold a connection, and a healthy client loses nothing but a handshake. Then
//! idle ones of clients that have more than a few, of whoever has the most; then those that idle the longest. To have
//! shown something genuine protects a few connections of a client, not hundreds, and those only while they are in use.
//!
//! Whoever has just connected is not thrown out for the next one: his request is on its way. Only when very many have
//! just connected do they make room for one another, the oldest first. Failing all that, one of the client that has by
//! far the most goes. When nobody can be asked to go, there is a place for a moment, in which the server says that it
//! lives, and to everything else to come again later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::client::{TrustedProxies, counted_as};
use super::pulse::{Pulse, millis};
use worth::{MODEST, Worth};

mod worth;

/// The most connections at once.
pub const MOST_CONNECTIONS: usize = 2048;

/// The most places for a moment besides the ordinary ones.
pub const MOMENTARY_CONNECTIONS: usize = 64;

/// The part of all connections that one client may have.
const SHARE_OF_ONE: usize = 4;

/// The part of all connections that make room at a time: looking for them looks at all of them.
const BATCH: usize = 128;

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
    /// How many ordinary places each client, or peer that speaks for others, has.
    clients: HashMap<IpAddr, usize>,
    ordinary: usize,
}

#[derive(Debug)]
struct Taken {
    client: IpAddr,
    /// Not those of the machine itself and of proxies.
    is_limited: bool,
    is_momentary: bool,
    /// In milliseconds since the server began.
    since: u64,
    pulse: Arc<Pulse>,
    close: CancellationToken,
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
        Place {
            places: Arc::clone(self),
            id,
            is_momentary: AtomicBool::new(is_momentary),
            pulse,
            close,
        }
    }

    /// Whether there is an ordinary place for a connection of this client, once somebody has made room for it.
    fn make_way(&self, state: &mut State, client: IpAddr, is_limited: bool) -> bool {
        let most = self.options.most;
        let most_of_one = (most / SHARE_OF_ONE).max(FEW);
        let of_client = if is_limited { state.of(client) } else { 0 };
        let is_way_made = if of_client >= most_of_one {
            // Its own have to go.
            let own = state.dispensable(self.now(), most, 1, |taken| taken.client == client);
            state.remove_all(&own)
        } else if state.ordinary >= most {
            self.make_room_in(state, of_client)
        } else {
            return true;
        };
        is_way_made && state.ordinary < most
    }

    /// Closes what can best be spared, for when the operating system gives no further connection.
    pub(super) fn make_room(&self) {
        self.make_room_in(&mut self.lock(), 0);
    }

    /// Whether anything was closed for a newcomer whose client has so many connections.
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
            // Of those who have not been served yet none goes as long as there is anybody who has.
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
    pub(super) fn are_scarce(&self) -> bool {
        self.lock().ordinary > self.options.most / 4 * 3
    }

    /// What the connections of a peer are counted by, and whether there is a limit to them. Those of proxies are not one
    /// client's, and those from the machine itself are a proxy's, or of somebody who could stop the server as well.
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
            *self.clients.entry(taken.client).or_default() += 1;
        }
        self.taken.insert(id, taken);
    }

    /// Ends a connection. Its place is free at once, a moment before the connection is.
    fn remove(&mut self, id: u64) -> bool {
        let taken = self.forget(id);
        taken.inspect(|taken| taken.close.cancel()).is_some()
    }

    /// Ends connections, but for the last few of those that have to go for being many; whether any.
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
