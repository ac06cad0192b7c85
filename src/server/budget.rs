//! How many bytes of bodies are under way, all connections together.
//!
//! A body takes its whole [`Share`] before any of it is read. So whichever was begun can be read to its end, and a
//! crowd does not use up everything with bodies none of which gets on. Until then it waits, which costs nothing but its
//! connection, since what is not read is not sent either.
//!
//! First come senders of better [`Standing`], then those who waited, the longer the more room they want and have: in a
//! flood of small bodies a larger one gets its turn, and in a flood of large ones a small one need not wait. Whoever is first and finds no room
//! turns out what is being read of senders of worse standing at once, and after a while what comes too slowly of
//! equal ones. So a sender of much waits for itself, a sender of little for nobody for long, and one that has proved
//! itself for no stranger at all. A body that is whole is not turned out.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::standing::{Standing, network};

/// The wait of a body before slow ones of equals have to make room.
const GRACE: Duration = Duration::from_secs(1);

/// The longest wait of a body in all. Senders of webhooks wait 10 seconds for their answer, partners up to a minute.
const PATIENCE: Duration = Duration::from_secs(18);

/// How many times in [`GRACE`] a body that waits looks for others that have to make room.
const LOOKS: u32 = 10;

/// How many times the patience a body waits for smaller ones of equals that would take all of the budget.
const WEIGHT: u128 = 2;

/// How many bodies wait at a time.
const MOST_WAITING: usize = 256;

/// There was no room in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// Whose a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) client: IpAddr,
    pub(super) standing: Standing,
}

/// A number of bytes that bodies share.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    /// How long a body may take to come while others wait. One that is slower is slow.
    haste: Duration,
    grace: Duration,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    held: HashMap<u64, Held>,
    clients: HashMap<IpAddr, Holds>,
    waiting: Vec<Waiting>,
}

/// The share of one client.
#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    bytes: usize,
    bodies: u32,
}

#[derive(Debug)]
struct Held {
    sender: Sender,
    bytes: usize,
    since: Instant,
    /// `None`: it does not have to make room any more.
    reading: Option<Arc<Reading>>,
}

/// A body that is not whole yet.
#[derive(Debug, Default)]
struct Reading {
    arrived: AtomicUsize,
    is_turned_out: AtomicBool,
    is_slow: AtomicBool,
    turn_out: Notify,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    since: Instant,
    sender: Sender,
    bytes: usize,
    reading: Arc<Reading>,
    go: oneshot::Sender<()>,
}

/// What one body holds of a [`Budget`]. Given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    id: u64,
    reading: Arc<Reading>,
}

impl Budget {
    /// `total` bytes. While others wait a body may take `haste` to come.
    pub(super) fn new(total: usize, haste: Duration) -> Arc<Self> {
        Self::with(total, haste, GRACE, PATIENCE)
    }

    fn with(total: usize, haste: Duration, grace: Duration, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            total,
            haste,
            grace,
            patience,
            state: Mutex::default(),
        })
    }

    /// Waits for room for a body.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub(super) async fn share(
        self: &Arc<Self>,
        sender: Sender,
        bytes: usize,
    ) -> Result<Share, NoRoom> {
        let (go, mut granted) = oneshot::channel();
        let reading = Arc::new(Reading::default());
        let share = {
            let mut state = self.lock();
            let id = state.next;
            state.next += 1;
            state.waiting.push(Waiting {
                id,
                since: Instant::now(),
                sender,
                bytes: bytes.min(self.total),
                reading: Arc::clone(&reading),
                go,
            });
            state.grant(self);
            state.thin_out(self);
            state.make_room(self);
            // Dropping it gives everything back from here on, whether it still waits or not.
            Share {
                budget: Arc::clone(self),
                id,
                reading,
            }
        };
        let mut patience = std::pin::pin!(tokio::time::sleep(self.patience));
        loop {
            tokio::select! {
                biased;
                granted = &mut granted => return granted.map(|()| share).map_err(|_| NoRoom),
                () = &mut patience => return Err(NoRoom),
                () = tokio::time::sleep(self.grace / LOOKS) => self.lock().make_room(self),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Notes that so many bytes of the body have come.
    pub(super) fn arrived(&self, bytes: usize) {
        self.reading.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends when others need the room; whether because the body came too slowly. Does not end after
    /// [`keep`](Self::keep).
    pub(super) async fn turned_out(&self) -> bool {
        self.reading.turn_out.notified().await;
        self.reading.is_slow.load(Ordering::Relaxed)
    }

    /// From here on the share is not taken away: the body is whole, and only waits for this server.
    pub(super) fn keep(&self) {
        if let Some(held) = self.budget.lock().held.get_mut(&self.id) {
            held.reading = None;
        }
    }

    /// Gives back what exceeds `bytes`.
    pub(super) fn shrink_to(&self, bytes: usize) {
        let mut state = self.budget.lock();
        state.release(self.id, bytes);
        state.grant(&self.budget);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        let id = self.id;
        state.waiting.retain(|waiting| waiting.id != id);
        state.remove(id);
        state.grant(&self.budget);
    }
}

impl State {
    /// Whose turn it is, the smallest first.
    fn turn(&self, waiting: &Waiting, budget: &Budget) -> (Reverse<Standing>, Instant, u64) {
        let Sender { client, standing } = waiting.sender;
        let holds = self.clients.get(&client).copied().unwrap_or_default();
        let bytes = (holds.bytes + waiting.bytes) as u128;
        let of_bytes = budget.patience.as_micros() * WEIGHT * bytes / budget.total.max(1) as u128;
        let of_bytes = Duration::from_micros(u64::try_from(of_bytes).unwrap_or(u64::MAX));
        let of_bodies = budget.grace.saturating_mul(holds.bodies);
        let turn = waiting
            .since
            .checked_add(of_bytes.saturating_add(of_bodies));
        (Reverse(standing), turn.unwrap_or(waiting.since), waiting.id)
    }

    fn first(&self, budget: &Budget) -> Option<usize> {
        let waiting = 0..self.waiting.len();
        waiting.min_by_key(|at| self.turn(&self.waiting[*at], budget))
    }

    /// Lets those begin for whom there is room, in turn.
    fn grant(&mut self, budget: &Budget) {
        while let Some(at) = self.first(budget) {
            if self.used + self.waiting[at].bytes > budget.total {
                return;
            }
            let next = self.waiting.swap_remove(at);
            let Sender { client, .. } = next.sender;
            let holds = self.clients.entry(client).or_default();
            holds.bytes += next.bytes;
            holds.bodies += 1;
            self.used += next.bytes;
            let held = Held {
                sender: next.sender,
                bytes: next.bytes,
                since: Instant::now(),
                reading: Some(next.reading),
            };
            self.held.insert(next.id, held);
            // Should nobody listen any more, the share is about to be dropped, and these bytes with it.
            let _ = next.go.send(());
        }
    }

    /// Refuses one when too many wait: of those that stand worst, of the network and the client that wait most often,
    /// the one whose turn is last.
    fn thin_out(&mut self, budget: &Budget) {
        if self.waiting.len() <= MOST_WAITING {
            return;
        }
        let mut networks: HashMap<IpAddr, usize> = HashMap::new();
        let mut clients: HashMap<IpAddr, usize> = HashMap::new();
        for Waiting { sender, .. } in &self.waiting {
            *networks.entry(network(sender.client)).or_default() += 1;
            *clients.entry(sender.client).or_default() += 1;
        }
        let last = (0..self.waiting.len()).max_by_key(|at| {
            let waiting = &self.waiting[*at];
            let Sender { client, standing } = waiting.sender;
            let often = (networks[&network(client)], clients[&client]);
            (Reverse(standing), often, self.turn(waiting, budget))
        });
        if let Some(last) = last {
            self.waiting.swap_remove(last);
        }
    }

    /// Turns out what has to make room for whose turn it is.
    fn make_room(&mut self, budget: &Budget) {
        let Some(first) = self.first(budget).map(|at| &self.waiting[at]) else {
            return;
        };
        let wants = first.sender.standing;
        let has_waited = first.since.elapsed() >= budget.grace;
        let leaving = self.held.values().filter(|held| held.is_leaving());
        let leaving: usize = leaving.map(|held| held.bytes).sum();
        let mut missing = (self.used + first.bytes).saturating_sub(budget.total + leaving);
        let mut others: Vec<_> = self
            .held
            .values()
            .filter(|held| held.reading.is_some() && !held.is_leaving())
            .map(|held| (held.sender.standing, held.is_slow(budget), held))
            .filter(|(standing, is_slow, _)| {
                *standing < wants || (*standing == wants && has_waited && *is_slow)
            })
            .collect();
        others.sort_by_key(|(standing, is_slow, held)| (*standing, !is_slow, Reverse(held.bytes)));
        for (_, is_slow, held) in others {
            if missing == 0 {
                return;
            }
            missing = missing.saturating_sub(held.bytes);
            held.turn_out(is_slow);
        }
    }

    fn release(&mut self, id: u64, keep: usize) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let freed = held.bytes.saturating_sub(keep);
        held.bytes -= freed;
        self.used -= freed;
        if let Some(holds) = self.clients.get_mut(&held.sender.client) {
            holds.bytes -= freed;
        }
    }

    fn remove(&mut self, id: u64) {
        self.release(id, 0);
        let Some(held) = self.held.remove(&id) else {
            return;
        };
        let client = held.sender.client;
        if let Some(holds) = self.clients.get_mut(&client) {
            holds.bodies -= 1;
            if holds.bodies == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

impl Held {
    /// Returns whether it was told to make room and has not done so yet.
    fn is_leaving(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| reading.is_turned_out.load(Ordering::Relaxed))
    }

    /// Returns whether at its pace it takes longer than `budget.haste` to come.
    fn is_slow(&self, budget: &Budget) -> bool {
        let elapsed = self.since.elapsed();
        let arrived = self.reading.as_ref();
        let arrived = arrived.map_or(0, |reading| reading.arrived.load(Ordering::Relaxed));
        let due = self.bytes as u128 * elapsed.as_millis() / budget.haste.as_millis().max(1);
        elapsed >= budget.grace && (arrived as u128) < due.min(self.bytes as u128)
    }

    fn turn_out(&self, is_slow: bool) {
        if let Some(reading) = &self.reading {
            reading.is_slow.store(is_slow, Ordering::Relaxed);
            reading.is_turned_out.store(true, Ordering::Relaxed);
            reading.turn_out.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
