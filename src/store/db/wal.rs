//! Size limit for SQLite's write-ahead log.
//!
//! SQLite copies the pages of the log into the database after a commit, and restarts the log once no reader needs it
//! any more. While readers overlap without a gap, that moment never comes by itself, so it is forced once the log has
//! grown: writers wait briefly until the current readers have finished.

use std::time::Duration;

use super::super::{Store, StoreError};
use super::connect::{Db, LOCK_WAIT};
use super::gate::Urgency;
use super::sql::Dialect;

/// Size from which the log is truncated, in bytes.
const LARGE: u64 = 32 << 20;

/// Size from which a log that cannot be truncated is reported, in bytes.
const HUGE: u64 = 512 << 20;

/// Maximum time to wait for readers. Writers are held up for as long.
const READERS_WAIT: Duration = Duration::from_millis(500);

impl Store {
    /// Truncates a write-ahead log that has grown large. Does nothing on PostgreSQL.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn cut_wal(&self) -> Result<(), StoreError> {
        self.0.db.check_files()?;
        let wal = format!("{}-wal", self.0.name);
        let size = || std::fs::metadata(&wal).map_or(0, |wal| wal.len());
        if self.0.db.dialect() == Dialect::Postgres || size() <= LARGE {
            return Ok(());
        }
        self.cut_wal_now(self.limit()).await?;
        let left = size();
        if left > HUGE {
            tracing::warn!(
                file = wal,
                mebibytes = left >> 20,
                "the write-ahead log cannot be cut: another program reads the database and does not finish"
            );
        }
        Ok(())
    }

    /// Truncates the write-ahead log, whatever its size.
    pub(in crate::store) async fn cut_wal_now(&self, limit: Duration) -> Result<(), StoreError> {
        let Db::Sqlite { write, .. } = &self.0.db else {
            return Ok(());
        };
        let until = self.turn_until();
        let cut = async {
            let mut held = write.acquire(Urgency::Housekeeping, until).await?;
            held.run(limit, busy_timeout(READERS_WAIT)).await?;
            let cut = held.run(limit, "PRAGMA wal_checkpoint(TRUNCATE)").await;
            let back = held.run(limit, busy_timeout(LOCK_WAIT)).await;
            if back.is_err() {
                held.give_up();
            }
            cut.and(back)
        };
        cut.await.map_err(|error| self.failed(&error))
    }
}

fn busy_timeout(wait: Duration) -> String {
    format!("PRAGMA busy_timeout = {}", wait.as_millis())
}
