//! How many bytes of bodies are under way, all connections together.
//!
//! A body of known length takes its whole [`Share`] before any of it is read. So whichever was begun can be read to its
//! end, and a crowd does not use up everything with bodies none of which gets on. Until then it waits, which costs
//! nothing but its connection, since what is not read is not sent either.
//!
//! First come senders of better [`Standing`], then those who waited, the longer the more room they want, and the more
//! bodies they, their network, and the range it is in have: in a flood of small bodies a larger one gets its turn, in a
//! flood of large ones a small one need not wait, and a crowd waits for itself. Those that wait turn out what is being
//! read of senders of worse standing at once, and of equal ones whatever comes too slowly, as soon as it does: all of
//! it that they want the room of, in turn. So a sender of much waits for itself, a sender of little for nobody for
//! long, and one that has proved itself for no stranger at all. A body that is whole is not turned out.
//!
//! A body of unknown length takes more room as it comes, and may wait for that while it holds some. Whoever does so has
//! to make room, as a slow one has, for whoever is first: so two of them never wait for each other for long. Those that
//! were begun come before those that were not, the oldest first, and nobody wants more than all there is: so the first
//! one always gets on.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::standing::Standing;
use shortage::Shortage;
use state::State;

mod held;
mod room;
mod shortage;
mod state;

/// The time that any body may take to come while equals wait for its room, and their wait before one that waits itself
/// has to make room.
const GRACE: Duration = Duration::from_secs(1);

/// The bytes of a second that it may take beyond that: what has to be sent again, or waits for a round trip, is
/// little, and whoever sends much sends it fast.
const RATE: u128 = 8 << 20;

/// The longest wait of a body in all. Senders of webhooks wait 10 seconds for their answer, partners up to a minute.
const PATIENCE: Duration = Duration::from_secs(18);

/// How many bodies wait at a time. With those that are read they leave some connections to others.
const MOST_WAITING: usize = 1536;

/// The least time from one look for those that have to make room to the next, however much changes.
const PAUSE: Duration = Duration::from_millis(10);

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Others came first for too long.
    Late,
    /// Too many wait.
    Crowded,
}

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
    grace: Duration,
    rate: u128,
    patience: Duration,
    state: Mutex<State>,
    /// Whichever of those that wait has it looks for room for all of them.
    lookout: tokio::sync::Mutex<()>,
    /// Somebody else waits or is read.
    changed: Notify,
    /// The size of its bodies, as the log has it.
    size: &'static str,
    shortage: Shortage,
}

/// A body that is not whole yet.
#[derive(Debug, Default)]
struct Reading {
    arrived: AtomicUsize,
    is_waiting: AtomicBool,
    is_turned_out: AtomicBool,
    is_slow: AtomicBool,
    turn_out: Notify,
}

/// What one body holds of a [`Budget`]. Given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    id: u64,
    reading: Arc<Reading>,
}

impl Budget {
    /// `total` bytes for bodies of this size.
    pub(super) fn new(size: &'static str, total: usize) -> Arc<Self> {
        let budget = Self::of(total, GRACE, RATE, PATIENCE);
        Arc::new(Self { size, ..budget })
    }

    #[cfg(test)]
    fn with(total: usize, grace: Duration, rate: u128, patience: Duration) -> Arc<Self> {
        Arc::new(Self::of(total, grace, rate, patience))
    }

    fn of(total: usize, grace: Duration, rate: u128, patience: Duration) -> Self {
        Self {
            total,
            grace,
            rate,
            patience,
            state: Mutex::default(),
            lookout: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            size: "any",
            shortage: Shortage::default(),
        }
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
        let (go, granted) = oneshot::channel();
        let reading = Arc::new(Reading::default());
        let id = self
            .lock()
            .ask(self, sender, bytes, Arc::clone(&reading), go);
        // Dropping it gives everything back from here on, whether it still waits or not.
        let share = Share {
            budget: Arc::clone(self),
            id,
            reading,
        };
        self.granted(granted).await?;
        Ok(share)
    }

    /// Waits until there is room, and looks for it meanwhile.
    async fn granted(&self, granted: oneshot::Receiver<()>) -> Result<(), NoRoom> {
        let granted = tokio::select! {
            biased;
            granted = granted => granted.map_err(|_| NoRoom::Crowded),
            () = tokio::time::sleep(self.patience) => Err(NoRoom::Late),
            () = self.look_out() => Err(NoRoom::Late),
        };
        granted.inspect_err(|why| self.shortage.refused(*why))
    }

    /// Has whatever is too slow make room, as soon as it is. Does not end.
    async fn look_out(&self) {
        let _one_does = self.lookout.lock().await;
        loop {
            let next = self.lock().make_room(self);
            self.shortage.tell(self.size, || self.lock().waiting.len());
            let next = next.into_iter().chain(self.shortage.due()).min();
            tokio::time::sleep(PAUSE).await;
            let changed = self.changed.notified();
            if let Some(next) = next {
                // Either way it is looked again.
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

impl Share {
    /// Notes that so many bytes of the body have come.
    pub(super) fn arrived(&self, bytes: usize) {
        self.reading.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends when others need the room; whether because the body came too slowly. Does not end after
    /// [`keep`](Self::keep).
    pub(super) async fn turned_out(&self) -> bool {
        loop {
            self.reading.turn_out.notified().await;
            // It may have been allowed to stay since.
            if self.reading.is_turned_out() {
                return self.reading.is_slow.load(Ordering::Relaxed);
            }
        }
    }

    /// Waits until the share has `bytes` in all. Meanwhile it may have to make room for others.
    ///
    /// # Errors
    /// [`NoRoom`], and the share is of no use any more.
    pub(super) async fn grow_to(&self, bytes: usize) -> Result<(), NoRoom> {
        let (go, granted) = oneshot::channel();
        self.reading.set_waiting(true);
        self.budget
            .lock()
            .ask_for_more(&self.budget, self.id, bytes, go);
        self.unless_turned_out(self.budget.granted(granted)).await
    }

    /// Waits for room elsewhere. Meanwhile it may have to make room for others.
    ///
    /// # Errors
    /// [`NoRoom`], and that of `elsewhere`.
    pub(super) async fn while_waiting<T>(
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

    /// The body does not make room after all: the rest of it came.
    pub(super) fn stay(&self) {
        self.reading.is_turned_out.store(false, Ordering::Relaxed);
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
