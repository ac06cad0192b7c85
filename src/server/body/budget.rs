//! Memory budget for request bodies, shared by all connections.
//!
//! A body that begins has a claim, the size that it declares or may reach, and gets a first [`Share`] of that. It gets more
//! whenever the share is full, as much as has come by then: the room that a sender holds depends on what it has sent, not
//! on what it declares. More is granted only if all bodies that have begun can still be read to their end one after the
//! other, each with what is free and what those before it give back. No two therefore wait for each other, a crowd cannot
//! exhaust the budget with bodies none of which makes progress, and the body that misses the least never waits. Until
//! then a body waits, which costs nothing but its connection and what it holds: what is not read is not sent either.
//!
//! Room is granted to proved senders first, as far as all of them together hold no more than their [`PART`]. Otherwise
//! it is granted in turn. The time waited counts against the room wanted and against the number of bodies that the
//! client, its network and its range already hold: in a flood of small bodies a larger one gets its turn, in a flood of
//! large ones a small one need not wait, and a crowd waits for itself. A sender of worse [`Standing`] comes some seconds
//! later, but is not kept out by better ones, however many they are.
//!
//! Waiting bodies evict bodies that are being read, in turn until there is the room that they want: whatever is too
//! slow, whoever sends it, and at once those of worse standing whose turn would not have been first. A sender of much
//! therefore waits for itself, a sender of little does not wait long for anyone, nobody holds room by being slow, and a
//! proved sender waits for no stranger. A complete body is never evicted.
//!
//! Bodies that have begun come before those that have not, the oldest first. Who lacks free room holds up those behind it
//! that have not begun. Who only waits until others are read to their end does not: what can be read meanwhile, with what
//! has to stay free for those, may begin. A body is not slow for as long as it waits for this server, and not evicted for
//! that, except by better ones. The time that a client takes is counted over all of its body: who trickles does not get a
//! moment more each time.
//!
//! A body of unknown length turns out to be large while it holds room for a smaller one. While it waits for the other room
//! it can be evicted like a slow one.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::super::client::standing::Standing;
use held::Held;
use shortage::Shortage;
use state::State;

mod claims;
mod held;
mod order;
mod room;
mod shortage;
mod state;

/// Time that any body may take to arrive while others wait for its room, and the time that those wait before a body
/// that is itself waiting has to make room.
const GRACE: Duration = Duration::from_secs(1);

/// Minimum rate of a body beyond [`GRACE`], in bytes per second. Retransmissions and round trips cost little, and a
/// sender of much sends it fast.
const RATE: u128 = 8 << 20;

/// Longest total wait of a body. Senders of webhooks wait 10 seconds for their answer, partners up to a minute.
const PATIENCE: Duration = Duration::from_secs(18);

/// Room, in bytes, that a body gets before anything of it has come.
pub(in crate::server) const FIRST: usize = 64 << 10;

/// Time for which a body that wants the whole budget lets smaller ones go first.
const WEIGHT: Duration = Duration::from_secs(36);

/// Same, for the work on one. Less than [`PATIENCE`], so that it gets its turn in any flood of little work.
const WEIGHT_OF_WORK: Duration = Duration::from_secs(8);

/// Maximum number of bodies that wait at a time. Together with those being read they leave some connections to others.
const MOST_WAITING: usize = 1536;

/// Part of the room, and of the places to wait in, that proved senders have before all others: whatever they do, the
/// rest stays for others.
const PART: (usize, usize) = (3, 4);

/// Shortest pause between two searches for bodies to evict, however much changes.
const PAUSE: Duration = Duration::from_millis(10);

/// Reason for which no room was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum NoRoom {
    /// Others came first for too long.
    Late,
    /// Too many bodies are waiting.
    Crowded,
}

/// Client that sends a body, and its standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Sender {
    pub(in crate::server) client: IpAddr,
    pub(in crate::server) standing: Standing,
}

/// Room that a body asks for.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Ask {
    /// Bytes to begin with.
    pub(in crate::server) now: usize,
    /// Most bytes that it may come to hold, these among them.
    pub(in crate::server) all: usize,
    /// Bytes for which it lets smaller ones pass.
    pub(in crate::server) weight: usize,
    /// Time that it took elsewhere.
    pub(in crate::server) spent: Spent,
}

/// Time that a body took until now.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::server) struct Spent {
    /// Time for which its client was waited for.
    sending: Duration,
    /// Time for which it waited for room.
    waiting: Duration,
}

/// Budget of bytes that bodies share.
#[derive(Debug)]
pub(in crate::server) struct Budget {
    total: usize,
    /// Room that proved senders have before all others.
    of_proved: usize,
    grace: Duration,
    rate: u128,
    patience: Duration,
    weight: Duration,
    state: Mutex<State>,
    /// Held by the one waiting body that searches for room on behalf of all of them.
    lookout: tokio::sync::Mutex<()>,
    /// Notified when another body begins to wait or to be read.
    changed: Notify,
    /// Name for the size of the bodies in the log.
    size: &'static str,
    shortage: Shortage,
}

/// State of a body that is not complete yet.
#[derive(Debug, Default)]
struct Reading {
    arrived: AtomicUsize,
    is_waiting: AtomicBool,
    is_turned_out: AtomicBool,
    is_slow: AtomicBool,
    turn_out: Notify,
}

/// Part of a [`Budget`] that one body holds. Released on drop.
#[derive(Debug)]
pub(in crate::server) struct Share {
    budget: Arc<Budget>,
    id: u64,
    reading: Arc<Reading>,
    /// Time for which the body waited for room.
    waited: Duration,
}

impl Ask {
    /// Asks for room for a body of this size, the first part of it at once.
    pub(in crate::server) fn of_body(bytes: usize) -> Self {
        Self {
            now: bytes.min(FIRST),
            ..Self::whole(bytes)
        }
    }

    /// Asks for so many bytes at once.
    fn whole(bytes: usize) -> Self {
        Self {
            now: bytes,
            all: bytes,
            weight: bytes,
            spent: Spent::default(),
        }
    }
}

impl Budget {
    /// Creates a budget of `total` bytes for bodies of this size, the largest of which has `largest` bytes.
    pub(in crate::server) fn new(size: &'static str, total: usize, largest: usize) -> Arc<Self> {
        let budget = Self::of(total, GRACE, RATE, PATIENCE);
        let of_proved = budget.of_proved.max(largest);
        Arc::new(Self {
            of_proved,
            size,
            weight: WEIGHT,
            ..budget
        })
    }

    /// Creates a budget of `total` bytes for what is made of bodies of this size. All of them are genuine.
    pub(in crate::server) fn of_work(size: &'static str, total: usize) -> Arc<Self> {
        let budget = Self::of(total, GRACE, RATE, PATIENCE);
        Arc::new(Self {
            size,
            weight: WEIGHT_OF_WORK,
            ..budget
        })
    }

    #[cfg(test)]
    fn with(total: usize, grace: Duration, rate: u128, patience: Duration) -> Arc<Self> {
        Arc::new(Self::of(total, grace, rate, patience))
    }

    fn of(total: usize, grace: Duration, rate: u128, patience: Duration) -> Self {
        Self {
            total,
            of_proved: part(total),
            grace,
            rate,
            patience,
            weight: 2 * patience,
            state: Mutex::default(),
            lookout: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            size: "any",
            shortage: Shortage::default(),
        }
    }

    /// Waits for room of `bytes` bytes.
    ///
    /// # Errors
    /// Returns [`NoRoom`] if others came first for too long, or if too many bodies are waiting.
    pub(in crate::server) async fn share(
        self: &Arc<Self>,
        sender: Sender,
        bytes: usize,
    ) -> Result<Share, NoRoom> {
        self.begin(sender, Ask::whole(bytes)).await
    }

    /// Waits for the first room of a body.
    ///
    /// # Errors
    /// Returns [`NoRoom`] if others came first for too long, or if too many bodies are waiting.
    pub(in crate::server) async fn begin(
        self: &Arc<Self>,
        sender: Sender,
        ask: Ask,
    ) -> Result<Share, NoRoom> {
        let (go, granted) = oneshot::channel();
        let reading = Arc::new(Reading::default());
        let id = self.lock().ask(self, sender, ask, Arc::clone(&reading), go);
        // Dropping it releases everything from here on, whether it still waits or not.
        let mut share = Share {
            budget: Arc::clone(self),
            id,
            reading,
            waited: ask.spent.waiting,
        };
        share.waited += self.granted(granted, share.waited).await?;
        share.begin();
        Ok(share)
    }

    /// Waits until there is room, searching for it in the meantime, and returns how long that took. The body has `waited`
    /// for some time already.
    async fn granted(
        &self,
        granted: oneshot::Receiver<()>,
        waited: Duration,
    ) -> Result<Duration, NoRoom> {
        let asked = Instant::now();
        let granted = tokio::select! {
            biased;
            granted = granted => granted.map_err(|_| NoRoom::Crowded),
            () = tokio::time::sleep(self.patience.saturating_sub(waited)) => Err(NoRoom::Late),
            () = self.look_out() => Err(NoRoom::Late),
        };
        let granted = granted.inspect_err(|why| self.shortage.refused(*why));
        granted.map(|()| asked.elapsed())
    }

    /// Evicts bodies as soon as they are too slow. Never returns.
    async fn look_out(&self) {
        let _one_does = self.lookout.lock().await;
        loop {
            let next = self.lock().make_room(self);
            self.shortage.tell(self.size, || self.lock().waiting.len());
            let next = next.into_iter().chain(self.shortage.due()).min();
            tokio::time::sleep(PAUSE).await;
            let changed = self.changed.notified();
            if let Some(next) = next {
                // The search is repeated either way.
                let _ = tokio::time::timeout_at(next.into(), changed).await;
            } else {
                changed.await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the part of `all` that proved senders have before all others.
fn part(all: usize) -> usize {
    let (part, of) = PART;
    all * part / of
}

impl Share {
    /// Records that `bytes` more bytes of the body have arrived.
    pub(in crate::server) fn arrived(&self, bytes: usize) {
        self.reading.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until others need the room, and returns whether the body was too slow. Never returns after
    /// [`keep`](Self::keep).
    pub(in crate::server) async fn turned_out(&self) -> bool {
        loop {
            self.reading.turn_out.notified().await;
            // The body may have been allowed to stay since.
            if self.reading.is_turned_out() {
                return self.reading.is_slow.load(Ordering::Relaxed);
            }
        }
    }

    /// Waits until the share has `bytes` bytes in total, of those that it may come to have. The body may be evicted
    /// while it waits.
    ///
    /// # Errors
    /// Returns [`NoRoom`], after which the share can no longer be used.
    pub(in crate::server) async fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let (go, granted) = oneshot::channel();
        self.budget
            .lock()
            .ask_for_more(&self.budget, self.id, bytes, go);
        let granted = self.budget.granted(granted, self.waited);
        self.waited += self.unless_turned_out(granted).await?;
        self.begin();
        Ok(())
    }

    /// Returns the time that the body took until now.
    pub(in crate::server) fn spent(&self) -> Spent {
        let state = self.budget.lock();
        let held = state.held.get(&self.id);
        Spent {
            sending: held.map_or(Duration::ZERO, Held::took),
            waiting: self.waited,
        }
    }

    /// Begins to count the time that the client takes. In a flood it is this server that was late until now.
    fn begin(&self) {
        if let Some(held) = self.budget.lock().held.get_mut(&self.id) {
            held.begin();
        }
    }

    /// Waits for room elsewhere. The body may be evicted while it waits.
    ///
    /// # Errors
    /// Returns [`NoRoom`] if the body is evicted, and any error of `elsewhere`.
    pub(in crate::server) async fn while_waiting<T>(
        &self,
        elsewhere: impl Future<Output = Result<T, NoRoom>>,
    ) -> Result<T, NoRoom> {
        self.reading.set_waiting(true);
        self.budget.changed.notify_one();
        let there = self.unless_turned_out(elsewhere).await;
        self.reading.set_waiting(false);
        there
    }

    async fn unless_turned_out<T>(
        &self,
        other: impl Future<Output = Result<T, NoRoom>>,
    ) -> Result<T, NoRoom> {
        tokio::select! {
            biased;
            _ = self.turned_out() => Err(NoRoom::Late),
            other = other => other,
        }
    }

    /// Cancels an eviction: the rest of the body has arrived.
    pub(in crate::server) fn stay(&self) {
        self.reading.is_turned_out.store(false, Ordering::Relaxed);
    }

    /// Protects the share from eviction from here on: the body is complete and only waits for this server.
    pub(in crate::server) fn keep(&self) {
        if let Some(held) = self.budget.lock().held.get_mut(&self.id) {
            held.reading = None;
        }
    }

    /// Releases what exceeds `bytes`.
    pub(in crate::server) fn shrink_to(&self, bytes: usize) {
        let mut state = self.budget.lock();
        state.release(self.id, bytes, &self.budget);
        state.grant(&self.budget);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.remove(self.id, &self.budget);
        state.grant(&self.budget);
    }
}

impl Reading {
    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    fn is_turned_out(&self) -> bool {
        self.is_turned_out.load(Ordering::Relaxed)
    }

    fn turn_out(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Relaxed);
        self.is_turned_out.store(true, Ordering::Relaxed);
        self.turn_out.notify_one();
    }
}

#[cfg(test)]
mod tests;
