//! Ends of connections, and of the pool.

use std::time::Duration;

use sqlx::{Connection as _, Database, Executor};
use tokio::time::{Instant, timeout};

use super::super::gate::{Pass, Urgency};
use super::{GOODBYE, Idle, Pool};

impl<DB: Database> Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Closes every connection, after those who use them, and returns all the places: until they are dropped
    /// nobody connects.
    pub(in crate::store) async fn empty(&self, until: Instant) -> Result<Vec<Pass>, sqlx::Error> {
        let mut places = Vec::new();
        for _ in 0..self.0.manners.size {
            places.push(self.enter(Urgency::Awaited, until).await?);
        }
        let idle = self.0.shelf.clear();
        self.ends();
        for idle in idle {
            let _ = timeout(GOODBYE, idle.connection.close()).await;
        }
        Ok(places)
    }

    /// Ends a connection in an unknown state.
    pub(in crate::store) fn end(&self, idle: Idle<DB>, place: Pass) {
        if self.0.manners.keeps_place {
            self.close_softly(idle.connection, Some(place));
        }
        // Else it ends here and now; the server notices.
    }

    /// Closes every connection, those in use as soon as they come back, and waits for that a moment.
    pub(in crate::store) async fn close(&self) {
        self.0.gate.close();
        self.0.shelf.close();
        for idle in self.0.shelf.clear() {
            self.close_softly(idle.connection, None);
        }
        self.0.closing.close();
        let closed = async {
            while self.0.gate.free() < self.0.manners.size {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.0.closing.wait().await;
        };
        if timeout(GOODBYE, closed).await.is_err() {
            tracing::warn!("closing a connection to the database timed out, it is left behind");
        }
    }

    /// Prepares for the end of a connection.
    pub(super) fn ends(&self) {
        let manners = &self.0.manners;
        if let Some(files) = manners.files.as_ref().filter(|_| manners.writes) {
            files.writer_ends();
        }
    }

    /// Says goodbye to the database while nobody waits. Without a runtime, the connection just ends.
    pub(super) fn close_softly(&self, connection: DB::Connection, place: Option<Pass>) {
        let keeps_place = self.0.manners.keeps_place;
        self.ends();
        self.in_background(async move {
            if keeps_place {
                let _ = connection.close().await;
            } else {
                let _ = timeout(GOODBYE, connection.close()).await;
            }
            drop(place);
        });
    }

    pub(in crate::store) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.closing.spawn(work);
        }
    }
}
