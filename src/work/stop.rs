//! Shutdown of a worker.

use tokio::time::{Instant, Interval, sleep_until, timeout_at};

use super::{RECOVER, Run};

impl Run<'_> {
    /// Lets items in flight finish, and releases those that do not in time.
    pub(super) async fn wind_down(mut self, mut heartbeat: Interval) {
        let end = Instant::now() + self.worker.options.patience;
        let holds_nothing = self.holds_nothing();
        // Items that were never started are released at the end, with those that did not finish.
        self.ready.clear();
        let mut is_excused = holds_nothing || self.excuse(end).await;
        while !is_excused || !self.tasks.is_empty() || !self.ended.is_empty() {
            let busy = !self.tasks.is_empty();
            tokio::select! {
                () = sleep_until(end) => break,
                _ = heartbeat.tick() => self.stay_alive().await,
                () = self.next_end(), if busy => {}
                () = tokio::time::sleep(RECOVER), if !busy || !is_excused => {}
            }
            if let Err(error) = self.commit().await {
                self.rest(&error);
            }
            is_excused = is_excused || self.excuse(end).await;
        }
        self.tasks.abort_all();
        self.release(end).await;
    }

    /// Records that this worker is stopping on purpose: an operator who loses patience and kills it is no fault of the
    /// items it was reading. Returns whether the database has recorded it.
    async fn excuse(&mut self, end: Instant) -> bool {
        let store = &self.worker.shared.parts.store;
        match timeout_at(end, store.excuse(&self.worker.id)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                self.rest(&error);
                false
            }
            Err(_) => false,
        }
    }

    /// Releases all items that are held. Tries at least once, and repeatedly while there is time.
    async fn release(&mut self, end: Instant) {
        let worker = self.worker;
        loop {
            match worker.shared.parts.store.release(&worker.id).await {
                Ok(0) => return,
                Ok(items) => {
                    tracing::info!(items, "work items were given back");
                    return;
                }
                Err(error) if Instant::now() >= end => {
                    tracing::warn!(%error, "work items are given back when their leases end");
                    return;
                }
                Err(_) => tokio::time::sleep(RECOVER).await,
            }
        }
    }
}
