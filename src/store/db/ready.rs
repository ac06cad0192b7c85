//! Readiness of the database: it answers, has the schema, and accepts changes.
//!
//! Anyone may ask, as often as they like, so the database is queried once for all who ask at the same time. A commit
//! counts as proof as well, and a write that failed for lack of space as proof of the contrary: a small write may still
//! find room where a larger one did not.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::{Store, StoreError};
use super::order::Locks;
use super::retry::retried;
use super::sql::{args, statements};

/// Time for which an answer is reused.
const FRESH: Duration = Duration::from_secs(1);

/// Time for which a commit is proof that the next one will succeed, and a failure that it will not.
const PROOF: Duration = Duration::from_secs(5);

/// Time for which another program may hold SQLite's write lock before that counts as a failure. Migrations and backups
/// hold it.
const LOCKED_OUT: Duration = Duration::from_secs(15);

/// Maximum time to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(9);

/// Number of rows in a write that serves as proof. Together with their index they are about as large as a report of a
/// few keys. A smaller write may find room on a full disk where no report does.
const PROBE_ROWS: usize = 32;

/// Size of each of these rows, in bytes.
const PROBE_BYTES: usize = 1_000;

statements! {
    /// No webhook has this name, so no one else uses these rows.
    TOUCH = "UPDATE webhook_deliveries SET received_at = {now} WHERE source = 'readiness'";
    FILL = "INSERT INTO webhook_deliveries (source, delivery, received_at) VALUES {rows:3}
        ON CONFLICT (source, delivery) DO NOTHING";
}

/// Known state of the database. Shared by all clones of a store.
#[derive(Debug, Default)]
pub(in crate::store) struct Ready {
    seen: Mutex<Seen>,
    checked: tokio::sync::Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

#[derive(Debug, Default)]
struct Seen {
    committed: Option<Instant>,
    failed: Option<(Instant, StoreError)>,
    /// Error of a statement that lacked a table, until every statement is taken again.
    emptied: Option<StoreError>,
}

impl Ready {
    /// Records that a transaction was committed.
    pub(in crate::store) fn committed(&self) {
        self.seen().committed = Some(Instant::now());
    }

    /// Records that a transaction failed.
    pub(in crate::store) fn failed(&self, error: &StoreError) {
        use StoreError::{Corrupt, Disk, Emptied, Full, ReadOnly};
        match error {
            Full { .. } | Disk { .. } | ReadOnly { .. } | Corrupt { .. } => {
                self.seen().failed = Some((Instant::now(), error.clone()));
            }
            Emptied { .. } => self.seen().emptied = Some(error.clone()),
            _ => {}
        }
    }

    /// Returns what recent transactions have proved, if anything.
    fn proof(&self) -> Option<Result<(), StoreError>> {
        let seen = self.seen();
        match (&seen.failed, seen.committed) {
            (Some((at, error)), _) if at.elapsed() < PROOF => Some(Err(error.clone())),
            (_, Some(at)) if at.elapsed() < PROOF => Some(Ok(())),
            _ => None,
        }
    }

    /// Discards the last answer, so that the next call queries the database.
    pub(in crate::store) async fn forget(&self) {
        *self.checked.lock().await = None;
    }

    fn committed_within(&self, time: Duration) -> bool {
        let committed = self.seen().committed;
        committed.is_some_and(|at| at.elapsed() < time)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Checks that requests can be served: the database answers, has the schema that this program needs, and accepts
    /// changes. The proof is a committed change, unless other changes have proved it recently. Cheap, however often it
    /// is called.
    ///
    /// # Errors
    /// Returns the errors of [`Store::check_ready`], and any [`StoreError`] of a change.
    pub async fn check_working(&self) -> Result<(), StoreError> {
        let silent = || StoreError::Unavailable {
            database: self.0.name.clone(),
            cause: format!("no answer within {} s", PATIENCE.as_secs()),
        };
        let check = async {
            // One caller asks while the others wait for its answer. The lock is released at the deadline, whatever
            // happens.
            let mut checked = self.0.ready.checked.lock().await;
            if let Some((at, result)) = &*checked
                && at.elapsed() < FRESH
            {
                return result.clone();
            }
            let result = match timeout(PATIENCE, self.check_now()).await {
                Ok(result) => result,
                Err(_) => Err(silent()),
            };
            *checked = Some((Instant::now(), result.clone()));
            result
        };
        timeout(PATIENCE + FRESH, check)
            .await
            .unwrap_or_else(|_| Err(silent()))
    }

    async fn check_now(&self) -> Result<(), StoreError> {
        self.0.db.check_files()?;
        self.check_tables().await?;
        if let Some(proof) = self.0.ready.proof() {
            return proof;
        }
        match self.probe().await {
            Err(StoreError::Busy { .. }) if self.0.ready.committed_within(LOCKED_OUT) => Ok(()),
            probed => probed,
        }
    }

    /// Checks that the schema is there, as it was when this program started. A write to one table proves nothing of the
    /// others.
    async fn check_tables(&self) -> Result<(), StoreError> {
        match self.check_ready().await {
            Err(StoreError::NotMigrated {
                database, found: 0, ..
            }) => {
                let cause = "there is none of them any more".to_owned();
                return Err(StoreError::Emptied { database, cause });
            }
            checked => checked?,
        }
        let emptied = self.0.ready.seen().emptied.clone();
        if let Some(error) = emptied {
            if self.check_statements().await.is_err() {
                return Err(error);
            }
            self.0.ready.seen().emptied = None;
        }
        Ok(())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        retried(|| self.probe_once()).await
    }

    async fn probe_once(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.locks(Locks::Deliveries);
        if tx.execute(TOUCH, args![]).await? < PROBE_ROWS as u64 {
            let row = |n| args!["readiness", format!("{n:0PROBE_BYTES$}"), 0_i64];
            let rows = (0..PROBE_ROWS).flat_map(row).collect();
            tx.execute(FILL.of(PROBE_ROWS), rows).await?;
            tx.execute(TOUCH, args![]).await?;
        }
        tx.commit().await
    }
}
