//! How a worker ends.

use tokio::time::{Instant, Interval, sleep_until, timeout_at};

use super::{RECOVER, Run};

impl Run<'_> {
    /// Lets the items under way end, and gives back those that do not.
    pub(super) async fn wind_down(mut self, mut heartbeat: Interval) {
        let end = Instant::now() + self.worker.options.patience;
        let holds_nothing = self.tasks.is_empty() && self.ended.is_empty() && self.ready.is_empty();
        // What has not begun is given back in the end with what does not end.
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

    /// Whoever stops a program may lose patience with it: that is no fault of what it was reading. Says whether
    /// the database knows.
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

    /// Gives back what is held. Once in any case, again and again while there is time.
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
