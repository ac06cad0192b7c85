//! Places for work that anybody can request any number of times, shared fairly among clients.
//!
//! The client with the fewest places comes first, among those the one whose network has the fewest, then the one that
//! has waited the longest. A client that asks for everything therefore gets what nobody else wants, and waits only for
//! itself. When too many wait, one is refused: of the range with the most waiting, of the network in it, and of the
//! client in that, so that many addresses of one network do not count as many clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::crowds::Crowds;
use super::network::network;

/// Error returned when there was no place in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct NoTurn;

/// Places that clients share.
#[derive(Debug)]
pub(in crate::server) struct Turns {
    at_once: usize,
    most_waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Client that holds each place.
    taken: HashMap<u64, IpAddr>,
    /// Waiting clients in the order of their arrival.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    client: IpAddr,
    go: oneshot::Sender<()>,
}

/// Place, or position in the queue for one. Released on drop.
#[derive(Debug)]
pub(in crate::server) struct Turn {
    turns: Arc<Turns>,
    id: u64,
}

impl Turns {
    /// Creates `at_once` places, for which at most `most_waiting` clients may wait.
    pub(in crate::server) fn new(at_once: usize, most_waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            at_once,
            most_waiting,
            state: Mutex::default(),
        })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Returns [`NoTurn`] if there is none within `patience`, or if too many are waiting.
    pub(in crate::server) async fn turn(
        self: &Arc<Self>,
        client: IpAddr,
        patience: Duration,
    ) -> Result<Turn, NoTurn> {
        let (go, granted) = oneshot::channel();
        let turn = {
            let mut state = self.lock();
            let id = state.next;
            state.next += 1;
            state.waiting.push(Waiting { id, client, go });
            state.grant(self.at_once);
            if state.waiting.len() > self.most_waiting {
                state.thin_out();
            }
            Turn {
                turns: Arc::clone(self),
                id,
            }
        };
        match tokio::time::timeout(patience, granted).await {
            Ok(Ok(())) => Ok(turn),
            _ => Err(NoTurn),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let id = self.id;
        state.waiting.retain(|waiting| waiting.id != id);
        state.taken.remove(&id);
        state.grant(self.turns.at_once);
    }
}

impl State {
    /// Grants the places that are free.
    fn grant(&mut self, at_once: usize) {
        while self.taken.len() < at_once {
            let has = |waiting: &Waiting| {
                let holders = self.taken.values();
                let own = holders.clone().filter(|holder| **holder == waiting.client);
                let near = network(waiting.client);
                let near = holders.filter(|holder| network(**holder) == near);
                (own.count(), near.count(), waiting.id)
            };
            let first = (0..self.waiting.len()).min_by_key(|at| has(&self.waiting[*at]));
            let Some(at) = first else {
                return;
            };
            let next = self.waiting.remove(at);
            self.taken.insert(next.id, next.client);
            // If nobody listens anymore, the turn is about to be dropped, and the place with it.
            let _ = next.go.send(());
        }
    }

    /// Refuses a random waiter among those of the client that waits most often, not the last one: otherwise a client
    /// that asks again at once would get all places.
    fn thin_out(&mut self) {
        let mut waiting = Crowds::default();
        for Waiting { client, .. } in &self.waiting {
            waiting.add(*client, 0);
        }
        let last = (0..self.waiting.len()).max_by_key(|at| {
            let counts = waiting.counts(self.waiting[*at].client);
            (counts, rand::random::<u32>())
        });
        if let Some(last) = last {
            self.waiting.remove(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn client(network: u8, number: u8) -> IpAddr {
        IpAddr::from([192, 0, network, number])
    }

    /// Lets spawned tasks begin to wait.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn whoever_wants_everything_waits_for_himself() {
        let turns = Turns::new(4, 16);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(turns.turn(client(1, 1), HOUR).await.unwrap());
        }
        let waiters = tokio_util::task::TaskTracker::new();
        let refused = Arc::new(Mutex::new(0));
        for _ in 0..100 {
            let (turns, refused) = (Arc::clone(&turns), Arc::clone(&refused));
            waiters.spawn(async move {
                match turns.turn(client(1, 1), HOUR).await {
                    Ok(turn) => {
                        let _turn = turn;
                        std::future::pending::<()>().await;
                    }
                    Err(NoTurn) => *refused.lock().unwrap() += 1,
                }
            });
        }
        settle().await;
        assert_eq!(*refused.lock().unwrap(), 84);
        let other = turns.turn(client(2, 1), HOUR);
        let free = async {
            settle().await;
            held.pop();
        };
        let (other, ()) = tokio::join!(other, free);
        assert!(other.is_ok());
        assert_eq!(*refused.lock().unwrap(), 85, "a newcomer went instead");
        assert_eq!(turns.lock().taken.len(), 4);
    }

    #[tokio::test]
    async fn a_network_of_many_addresses_is_not_many() {
        let turns = Turns::new(1, 8);
        let held = turns.turn(client(1, 0), HOUR).await.unwrap();
        let crowd = (1..=8).map(async |number| {
            let turn = turns.turn(client(1, number), HOUR).await;
            turn.map(drop)
        });
        let crowd = futures_util::future::join_all(crowd);
        let other = async {
            settle().await;
            let other = turns.turn(client(2, 1), HOUR);
            let free = async {
                settle().await;
                drop(held);
            };
            let (other, ()) = tokio::join!(other, free);
            other.map(drop)
        };
        let (crowd, other) = tokio::join!(
            async {
                let granted = crowd.await;
                granted.iter().filter(|turn| turn.is_ok()).count()
            },
            other
        );
        assert!(other.is_ok());
        assert_eq!(crowd, 7);
    }

    #[tokio::test]
    async fn whoever_comes_last_is_not_the_one_who_has_to_go() {
        let turns = Turns::new(1, 100);
        let _held = turns.turn(client(1, 1), HOUR).await.unwrap();
        let mut waiting = Vec::new();
        for number in 0..105 {
            // Each from another range.
            let mut turn = Box::pin(turns.turn(IpAddr::from([11, number, 1, 1]), HOUR));
            let is_refused = futures_util::poll!(&mut turn).is_ready();
            waiting.push((!is_refused).then_some(turn));
        }
        assert_eq!(turns.lock().waiting.len(), 100);
        // Each of the last ones is refused with a chance of one in a hundred.
        let mut stayed = 0;
        for mut turn in waiting.split_off(100).into_iter().flatten() {
            stayed += usize::from(futures_util::poll!(&mut turn).is_pending());
        }
        assert!(stayed > 0);
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_nothing_behind() {
        let turns = Turns::new(1, 8);
        let held = turns.turn(client(1, 1), HOUR).await.unwrap();
        let refused = turns.turn(client(1, 2), Duration::from_millis(5)).await;
        assert_eq!(refused.unwrap_err(), NoTurn);
        assert!(turns.lock().waiting.is_empty());
        drop(held);
        assert!(turns.lock().taken.is_empty());
        assert!(turns.turn(client(1, 2), Duration::ZERO).await.is_ok());
    }
}
