//! Memory budget for request bodies, shared by all connections.
//!
//! A body that begins has a claim, the size that it declares or may reach, and gets a first [`Share`] of that. It gets
//! more whenever the share is full, as much as has come by then: the room that a sender holds depends on what it has
//! sent, not on what it declares. More is granted only if all bodies that have begun can still be read to their end one
//! after the other, each with what is free and what those before it give back. No two therefore wait for each other, a
//! crowd cannot exhaust the budget with bodies none of which makes progress, and the body that misses the least never
//! waits. Until then a body waits, which costs nothing but its connection and what it holds: what is not read is not
//! sent either.
//!
//! Room is granted to proved senders first, as far as all of them together hold no more than their part. Otherwise
//! it is granted in turn. The time waited counts against the room wanted and against the number of bodies that the
//! client, its network and its range already hold: in a flood of small bodies a larger one gets its turn, in a flood of
//! large ones a small one need not wait, and a crowd waits for itself. A sender of worse standing comes some seconds
//! later, but is not kept out by better ones, however many they are.
//!
//! Waiting bodies evict bodies that are being read, in turn until there is the room that they want: whatever is too
//! slow, whoever sends it, and at once those of worse standing whose turn would not have been first. A sender of much
//! therefore waits for itself, a sender of little does not wait long for anyone, nobody holds room by being slow, and a
//! proved sender waits for no stranger. A complete body is never evicted.
//!
//! Bodies that have begun come before those that have not, the oldest first. A body that would miss more than it gets
//! begins only as long as all such bodies together hold no more than three quarters of the room: with all of it given
//! to beginnings, they would be read to their end one by one, and none would be late for having to wait. Who lacks free
//! room holds up those behind it that have not begun. Who only waits until others are read to their end does not: what
//! can be read meanwhile, with what has to stay free for those, may begin. A body is not slow for as long as it waits
//! for this server, and not evicted for that, except by better ones. The time that a client takes is counted over all
//! of its body: who trickles does not get a moment more each time.
//!
//! A body of unknown length turns out to be large while it holds room for a smaller one. While it waits for the other
//! room it can be evicted like a slow one.
//!
//! As long as few wait, whoever changes something grants what that makes possible. Of many, one does so on behalf of
//! all, every few milliseconds: one look costs about as much as it takes to line them up, however much has changed
//! since the last one, so that no crowd can keep the lock by coming and going.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

pub(super) use ask::{Ask, NoRoom, Sender};
use limits::Limits;
use progress::Progress;
use room::make_room;
pub(super) use share::Share;
use shortage::Shortage;
use state::State;

mod ask;
mod claims;
mod held;
mod limits;
mod order;
mod progress;
mod room;
mod share;
mod shortage;
mod state;
mod waiting;

/// Number of waiting bodies up to which each change grants room at once.
const FEW: usize = 64;

/// Shortest pause between two looks on behalf of all that wait, however much changes.
const PAUSE: Duration = Duration::from_millis(10);

/// Budget of bytes that bodies share.
#[derive(Debug)]
pub(in crate::server) struct Budget {
    limits: Limits,
    state: Mutex<State>,
    /// Held by the one waiting body that looks for room on behalf of all of them, with the time of the last look.
    lookout: tokio::sync::Mutex<Option<Instant>>,
    /// Notified when anything changes that the next look has to take into account.
    changed: Notify,
    /// Name for the size of the bodies in the log.
    size: &'static str,
    shortage: Shortage,
}

impl Budget {
    /// Creates a budget of `total` bytes for bodies of this size, the largest of which has `largest` bytes.
    pub(in crate::server) fn new(size: &'static str, total: usize, largest: usize) -> Arc<Self> {
        Arc::new(Self::of(size, Limits::of_bodies(total, largest)))
    }

    /// Creates a budget of `total` bytes for what is made of bodies of this size. All of them are genuine.
    pub(in crate::server) fn of_work(size: &'static str, total: usize) -> Arc<Self> {
        Arc::new(Self::of(size, Limits::of_work(total)))
    }

    fn of(size: &'static str, limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            lookout: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            size,
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
        let progress = Arc::new(Progress::default());
        let id = self.change(|state| {
            let progress = Arc::clone(&progress);
            state.ask(&self.limits, sender, ask, progress, go)
        });
        // Dropping it releases everything from here on, whether it still waits or not.
        let mut share = Share {
            budget: Arc::clone(self),
            id,
            progress,
            waited: ask.spent.waiting,
        };
        share.waited += self.granted(granted, share.waited).await?;
        share.begin();
        Ok(share)
    }

    /// Waits until there is room, searching for it in the meantime, and returns how long that took. The body has
    /// `waited` for some time already.
    async fn granted(
        &self,
        granted: oneshot::Receiver<()>,
        waited: Duration,
    ) -> Result<Duration, NoRoom> {
        let asked = Instant::now();
        let granted = tokio::select! {
            biased;
            granted = granted => granted.map_err(|_| NoRoom::Crowded),
            () = tokio::time::sleep(self.limits.patience.saturating_sub(waited)) => Err(NoRoom::Late),
            () = self.look_out() => Err(NoRoom::Late),
        };
        let granted = granted.inspect_err(|why| self.shortage.refused(*why));
        granted.map(|()| asked.elapsed())
    }

    /// Grants room to those whose turn it is, and evicts bodies as soon as they are too slow. Never returns.
    async fn look_out(&self) {
        let mut looked = self.lookout.lock().await;
        loop {
            // Whoever did so before may have got its room a moment ago.
            if let Some(looked) = *looked {
                tokio::time::sleep_until((looked + PAUSE).into()).await;
            }
            let next = self.look();
            *looked = Some(Instant::now());
            self.shortage.tell(self.size, || self.lock().waiting.len());
            let next = next.into_iter().chain(self.shortage.due()).min();
            let changed = self.changed.notified();
            if let Some(next) = next {
                // The look is repeated either way.
                let _ = tokio::time::timeout_at(next.into(), changed).await;
            } else {
                changed.await;
            }
        }
    }

    /// Grants room, and evicts bodies in favor of those that find none. Returns the time at which more of them become
    /// late.
    fn look(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.grant(&self.limits);
        make_room(&state, &self.limits, &self.shortage)
    }

    /// Changes the state, and lets those that wait have what that makes possible.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        if state.waiting.len() <= FEW {
            if state.grant(&self.limits) {
                make_room(&state, &self.limits, &self.shortage);
            }
        } else {
            state.thin_out();
        }
        if !state.waiting.is_empty() {
            self.changed.notify_one();
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
