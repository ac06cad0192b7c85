//! Places that what is polled of a host gets ahead of what is more urgent.
//!
//! Pushes that webhooks tell of go before what is polled. Pushes that come as fast as they can be read would keep what is
//! polled, of the same host or any other, waiting for as long as they come.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Worker;
use super::claim::FRONTS_MAX;
use super::round::Round;
use super::shares::{Shares, is_urgent};
use crate::store::{Lane, Priority, StoreError};

/// Interval at which one item gets a place so.
const EVERY: Duration = Duration::from_millis(500);

impl Worker {
    /// Chooses an item that is not urgent, of a host that has no place with one, if it is time for one and there is a
    /// place that is not kept for what is urgent. It has to be a host that the configuration names.
    pub(super) async fn lend(
        &self,
        shares: &mut Shares,
        round: &mut Round,
    ) -> Result<Option<Uuid>, StoreError> {
        let is_time = round.lent_at.is_none_or(|at| at.elapsed() >= EVERY);
        if !is_time || shares.free_for_all() == 0 {
            return Ok(None);
        }
        round.lent_at = Some(Instant::now());
        let queues = self.queues(Lane::Ordinary, Priority::Backfill, round);
        let mut queues = queues.await?;
        queues.retain(|queue| {
            let has_none = !shares.has_patient(&queue.host);
            has_none && self.knows(&queue.host) && !is_urgent(queue.priority)
        });
        for queue in queues.iter().take(FRONTS_MAX) {
            let front = self.front(queue, Vec::new(), &round.turns).await?;
            let Some(next) = front.first() else {
                continue;
            };
            let whose = (&*next.owner, &*next.remote);
            shares.take(&queue.host, whose, true, queue.priority);
            self.note_chosen(&queue.host, next, round);
            round.lent.insert(next.id);
            return Ok(Some(next.id));
        }
        Ok(None)
    }
}
