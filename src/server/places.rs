//! How many connections there may be, whose, and which of them have to go when others come.
//!
//! Whoever comes when all places are taken gets the one of the connection for whose client the server has waited
//! the longest; failing that, one of the client that has by far the most. When nobody can be asked to go, there is
//! a place for a moment, in which the server says that it lives, and to everything else to come again later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::client::{TrustedProxies, counted_as};
use super::pulse::{Pulse, millis};

/// The most connections at once.
pub const MOST_CONNECTIONS: usize = 4096;

/// Places for a moment besides the ordinary ones.
pub const MOMENTARY_CONNECTIONS: usize = 64;

/// The part of all connections that one client may have.
const SHARE_OF_ONE: usize = 4;

/// How long the server has to have waited for a client before its connection makes room for another one.
const IDLE: Duration = Duration::from_secs(1);

/// How often somebody without a place looks for one.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many connections every client may have, however few there are in all.
const FEW: usize = 8;

/// How many connections there may be, and who speaks for others.
#[derive(Debug, Clone)]
pub struct Connections {
    /// The most at once. There are [`MOMENTARY_CONNECTIONS`] more for a moment.
    pub most: usize,
    /// Their connections are those of many clients.
    pub proxies: TrustedProxies,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            most: MOST_CONNECTIONS,
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
        if is_momentary && state.taken.len() - state.ordinary >= MOMENTARY_CONNECTIONS {
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
        let leaves = if of_client >= most_of_one {
            // Its own have to go.
            state.idlest(now, |taken| taken.client == client)
        } else if state.ordinary >= most {
            let idlest = state.idlest(now, |_| true);
            idlest.or_else(|| state.of_the_greediest(of_client))
        } else {
            return true;
        };
        leaves.is_some_and(|id| state.remove(id)) && state.ordinary < most
    }

    /// Closes the idlest connection, for when the operating system gives no further one.
    pub(super) fn make_room(&self) {
        let now = self.now();
        let mut state = self.lock();
        if let Some(id) = state.idlest(now, |_| true) {
            state.remove(id);
        }
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

    /// Waits for an ordinary place; whether there was one in time.
    pub(super) async fn promoted(&self, patience: Duration) -> bool {
        let began = Instant::now();
        while !self.promote() {
            if began.elapsed() >= patience {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
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

    /// The connection for whose client the server has waited the longest, and for long enough.
    fn idlest(&self, now: u64, eligible: impl Fn(&Taken) -> bool) -> Option<u64> {
        let taken = self.taken.iter();
        let idle = taken.filter(|(_, taken)| {
            !taken.is_momentary && taken.pulse.is_waiting() && eligible(taken)
        });
        let (id, taken) = idle.min_by_key(|(_, taken)| taken.pulse.last())?;
        let idle = Duration::from_millis(now.saturating_sub(taken.pulse.last()));
        (idle >= IDLE).then_some(*id)
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
mod tests {
    use super::*;
    use crate::server::pulse::STEP;

    fn places(most: usize) -> Arc<Places> {
        Places::new(Connections {
            most,
            proxies: TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]),
        })
    }

    fn from(places: &Arc<Places>, peer: &str) -> Place {
        places.admit(peer.parse().unwrap())
    }

    /// As if nothing had moved for so long.
    fn idle(place: &Place, millis: u64) {
        place.pulse.was_idle_for(millis);
    }

    /// Places that were made so long ago that a connection can be idle.
    fn old_places(most: usize) -> Arc<Places> {
        let places = places(most);
        let mut places = Arc::into_inner(places).unwrap();
        places.began -= Duration::from_mins(1);
        Arc::new(places)
    }

    #[test]
    fn the_idlest_goes_first() {
        let places = old_places(3);
        let peers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let [old, older, young] = peers.map(|peer| from(&places, peer));
        idle(&old, 2000);
        idle(&older, 3000);
        let newcomer = from(&places, "192.0.2.4");
        assert!(older.close.is_cancelled() && !old.close.is_cancelled());
        let another = from(&places, "192.0.2.5");
        assert!(old.close.is_cancelled() && !young.close.is_cancelled());
        assert!(!newcomer.is_momentary() && !another.is_momentary());
        // Nobody is idle any more.
        assert!(from(&places, "192.0.2.6").is_momentary());
        drop((old, older, young));
        assert!(!from(&places, "192.0.2.7").is_momentary());
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_place_of_whoever_idles() {
        let places = old_places(1);
        let first = from(&places, "192.0.2.1");
        let second = from(&places, "192.0.2.2");
        assert!(second.is_momentary());
        assert!(!second.promoted(Duration::ZERO).await);
        idle(&first, 950);
        assert!(second.promoted(Duration::from_mins(1)).await);
        assert!(!second.is_momentary() && first.close.is_cancelled());
        drop((first, second));
        let state = places.lock();
        assert!(state.ordinary == 0 && state.taken.is_empty() && state.clients.is_empty());
    }

    #[test]
    fn whoever_is_being_served_stays() {
        let places = old_places(1);
        let busy = from(&places, "192.0.2.1");
        let turn = busy.pulse.work();
        idle(&busy, 5000);
        assert!(from(&places, "192.0.2.2").is_momentary());
        // A body that does not come is the client's fault, however often a byte of it does.
        let waits = busy.pulse.wait_for_client();
        for _ in 0..100 {
            busy.pulse.moved(1);
        }
        assert!(!from(&places, "192.0.2.2").is_momentary());
        assert!(busy.close.is_cancelled());
        drop((waits, turn));
    }

    #[test]
    fn whoever_moves_on_stays() {
        let places = old_places(1);
        let reader = from(&places, "192.0.2.1");
        idle(&reader, 5000);
        reader.pulse.moved(STEP);
        assert!(from(&places, "192.0.2.2").is_momentary());
        assert!(!reader.close.is_cancelled());
    }

    #[test]
    fn one_client_has_a_quarter_and_no_more() {
        let places = old_places(40);
        let mut mine: Vec<_> = (0..10).map(|_| from(&places, "192.0.2.1")).collect();
        assert!(mine.iter().all(|place| !place.is_momentary()));
        assert!(from(&places, "192.0.2.1").is_momentary());
        assert!(from(&places, "::ffff:192.0.2.1").is_momentary());
        assert!(!from(&places, "192.0.2.2").is_momentary());
        idle(&mine[3], 2000);
        mine.push(from(&places, "192.0.2.1"));
        assert!(mine[3].close.is_cancelled() && !mine[10].is_momentary());
        // A subscriber's network is one client; proxies and the machine itself are many.
        let v6: Vec<_> = (0..11)
            .map(|n| from(&places, &format!("2001:db8::{n}")))
            .collect();
        assert!(v6[10].is_momentary() && !v6[9].is_momentary());
    }

    #[test]
    fn proxies_and_the_machine_itself_are_many_clients() {
        for peer in ["10.1.2.3", "127.0.0.1", "::1", "::ffff:10.1.2.3"] {
            let places = old_places(40);
            let mine: Vec<_> = (0..40).map(|_| from(&places, peer)).collect();
            assert!(mine.iter().all(|place| !place.is_momentary()), "{peer}");
        }
    }

    #[test]
    fn the_greediest_makes_room_when_nobody_is_idle() {
        let places = old_places(60);
        let crowd: Vec<_> = (0..4)
            .flat_map(|n| (0..15).map(move |_| format!("192.0.2.{n}")))
            .map(|peer| from(&places, &peer))
            .collect();
        assert!(crowd.iter().all(|place| !place.is_momentary()));
        let modest = from(&places, "198.51.100.1");
        assert!(!modest.is_momentary());
        assert_eq!(crowd.iter().filter(|p| p.close.is_cancelled()).count(), 1);
    }

    #[test]
    fn places_for_a_moment_are_never_used_up() {
        let places = old_places(1);
        let _busy = from(&places, "192.0.2.1");
        let crowd: Vec<_> = (0..MOMENTARY_CONNECTIONS)
            .map(|_| from(&places, "192.0.2.2"))
            .collect();
        assert!(crowd.iter().all(|place| !place.close.is_cancelled()));
        let probe = from(&places, "127.0.0.1");
        assert!(probe.is_momentary() && !probe.close.is_cancelled());
        assert!(crowd[0].close.is_cancelled() && !crowd[1].close.is_cancelled());
    }
}
