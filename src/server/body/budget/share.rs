//! Part of a budget that one body holds, as its reader sees it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Budget;
use super::ask::{NoRoom, Spent};
use super::progress::Progress;

/// Part of a [`Budget`] that one body holds. Released on drop.
#[derive(Debug)]
pub(in crate::server) struct Share {
    pub(super) budget: Arc<Budget>,
    pub(super) id: u64,
    pub(super) progress: Arc<Progress>,
    /// Time for which the body waited for room.
    pub(super) waited: Duration,
}

impl Share {
    /// Records that `bytes` more bytes of the body have arrived.
    pub(in crate::server) fn arrived(&self, bytes: usize) {
        self.progress.add(bytes);
    }

    /// Waits until others need the room, and returns whether the body was too slow. Never returns after
    /// [`keep`](Self::keep).
    pub(in crate::server) async fn turned_out(&self) -> bool {
        self.progress.turned_out().await
    }

    /// Waits until the share has `bytes` bytes in total, of those that it may come to have. The body may be evicted
    /// while it waits.
    ///
    /// # Errors
    /// Returns [`NoRoom`], after which the share can no longer be used.
    pub(in crate::server) async fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let (go, granted) = oneshot::channel();
        self.budget
            .change(|state| state.ask_for_more(self.id, bytes, go));
        let granted = self.budget.granted(granted, self.waited);
        self.waited += self.unless_turned_out(granted).await?;
        self.begin();
        Ok(())
    }

    /// Returns the time that the body took until now.
    pub(in crate::server) fn spent(&self) -> Spent {
        Spent {
            sending: self.budget.lock().took(self.id),
            waiting: self.waited,
        }
    }

    /// Begins to count the time that the client takes. In a flood it is this server that was late until now.
    pub(super) fn begin(&self) {
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
        self.progress.set_waiting(true);
        self.budget.changed.notify_one();
        let there = self.unless_turned_out(elsewhere).await;
        self.progress.set_waiting(false);
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
        self.progress.stay();
    }

    /// Protects the share from eviction from here on: the body is complete and only waits for this server.
    pub(in crate::server) fn keep(&self) {
        if let Some(held) = self.budget.lock().held.get_mut(&self.id) {
            held.progress = None;
        }
    }

    /// Releases what exceeds `bytes`.
    pub(in crate::server) fn shrink_to(&self, bytes: usize) {
        self.budget.change(|state| state.release(self.id, bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.change(|state| state.remove(self.id));
    }
}
