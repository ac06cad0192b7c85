//! Readiness of the database: it answers, has the schema, holds nothing that would not be found, and accepts changes.
//!
//! Anyone may ask, as often as they like, so the database is queried once for all who ask at the same time. A commit
//! counts as proof as well, and a write that failed for lack of space as proof of the contrary: a small write may still
//! find room where a larger one did not. On PostgreSQL a commit proves nothing of other tables, which may be locked,
//! lack a privilege or their file, so the proof there is one that needs what a report needs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::{Read as _, Store, StoreError, Tx};
use super::order::Locks;
use super::retry::retried;
use super::sql::{Dialect, Sql, args, statements};
use super::whole::TABLES;

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

/// Time limit of a proof for a lock that another program holds. Reports take their locks for some milliseconds.
const LOCK_WAIT: Sql = Sql::new("SELECT pg_catalog.set_config('lock_timeout', '2000', true)");

/// The lock of tables that each report takes: another program may hold one that allows reading, but no changes.
const LOCK_TABLES: Sql = Sql::new(
    "LOCK TABLE keys, incidents, occurrences, revocation_log, tokens, work_items IN ROW EXCLUSIVE MODE",
);

statements! {
    /// Everybody who revokes a key waits for this row.
    LOG_HEAD = "SELECT seq FROM log_head WHERE id = 1 {for update}";
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
    /// Time of the last complete proof.
    proved: Option<Instant>,
    /// `true` if the last proof found something locked.
    locked: bool,
    failed: Option<(Instant, StoreError)>,
}

/// Outcome of a proof that did not fail.
enum Proof {
    Complete,
    /// Another program holds a lock.
    Locked(StoreError),
}

impl Ready {
    /// Records that a transaction was committed.
    pub(in crate::store) fn committed(&self) {
        self.seen().committed = Some(Instant::now());
    }

    /// Records that a transaction failed.
    pub(in crate::store) fn failed(&self, error: &StoreError) {
        use StoreError::{Corrupt, Disk, Forbidden, Full, Pooled, ReadOnly};
        if let Full { .. }
        | Disk { .. }
        | ReadOnly { .. }
        | Corrupt { .. }
        | Forbidden { .. }
        | Pooled { .. } = error
        {
            let mut seen = self.seen();
            seen.failed = Some((Instant::now(), error.clone()));
            // Only a proof that comes later shows that it is over.
            seen.proved = None;
        }
    }

    /// Returns what recent transactions have proved, if anything.
    fn proof(&self, dialect: Dialect) -> Option<Result<(), StoreError>> {
        let seen = self.seen();
        let proved = match dialect {
            Dialect::Sqlite => seen.committed,
            Dialect::Postgres => seen.proved,
        };
        match (&seen.failed, proved) {
            (Some((at, error)), _) if at.elapsed() < PROOF => Some(Err(error.clone())),
            (_, Some(at)) if at.elapsed() < PROOF => Some(Ok(())),
            _ => None,
        }
    }

    /// Discards the last answer, so that the next call queries the database.
    pub(in crate::store) async fn forget(&self) {
        *self.checked.lock().await = None;
    }

    /// Records a proof. Returns its error only if the one before found something locked, too.
    fn proved(&self, proof: Proof) -> Result<(), StoreError> {
        let mut seen = self.seen();
        match proof {
            Proof::Complete => {
                seen.proved = Some(Instant::now());
                seen.locked = false;
                Ok(())
            }
            Proof::Locked(error) if seen.locked => Err(error),
            Proof::Locked(_) => {
                seen.locked = true;
                Ok(())
            }
        }
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
    /// Checks that requests can be served: the database answers, has the schema that this program needs and nothing under
    /// a pepper that is not configured, and accepts changes. The proof is a committed change, unless other changes have
    /// proved it recently. Cheap, however often it is called.
    ///
    /// # Errors
    /// Returns the errors of [`Store::check_ready`], [`Store::check_peppers`] and [`Store::log_head`], and any
    /// [`StoreError`] of a change.
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
        self.check_whole().await?;
        self.check_tables().await?;
        self.check_access().await?;
        self.check_peppers().await?;
        // Without its row every report fails, whatever else is committed.
        self.log_head().await?;
        if let Some(proof) = self.0.ready.proof(self.0.db.dialect()) {
            return proof;
        }
        match self.probe().await {
            Err(StoreError::Busy { .. }) if self.0.ready.committed_within(LOCKED_OUT) => Ok(()),
            probed => self.0.ready.proved(probed?),
        }
    }

    /// Checks that the database accepts the changes that a report needs, at this moment.
    ///
    /// # Errors
    /// Returns [`StoreError::Busy`] if another program holds a lock, and any [`StoreError`] of a change.
    pub async fn check_changes(&self) -> Result<(), StoreError> {
        match self.probe().await? {
            Proof::Complete => Ok(()),
            Proof::Locked(error) => Err(error),
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
                let error = StoreError::Emptied { database, cause };
                self.0.whole.lacks(&error);
                return Err(error);
            }
            checked => checked?,
        }
        self.check_tables_are_the_same().await
    }

    async fn probe(&self) -> Result<Proof, StoreError> {
        retried(|| self.probe_once()).await
    }

    async fn probe_once(&self) -> Result<Proof, StoreError> {
        let tx = self.begin().await?;
        match self.change(tx).await {
            Ok(()) => Ok(Proof::Complete),
            // It has its connection and, on SQLite, the lock of whoever writes.
            Err(error @ StoreError::Busy { .. }) => Ok(Proof::Locked(error)),
            Err(error) => Err(error),
        }
    }

    /// Changes what belongs to nobody, and takes on the way what a report takes.
    async fn change(&self, mut tx: Tx) -> Result<(), StoreError> {
        tx.locks(Locks::Deliveries);
        if self.0.db.dialect() == Dialect::Postgres {
            tx.fetch(LOCK_WAIT, args![], |_| Ok(())).await?;
            tx.fetch(every_table(), args![], |_| Ok(())).await?;
            tx.execute(LOCK_TABLES, args![]).await?;
        }
        if tx.execute(TOUCH, args![]).await? < PROBE_ROWS as u64 {
            let row = |n| args!["readiness", format!("{n:0PROBE_BYTES$}"), 0_i64];
            let rows = (0..PROBE_ROWS).flat_map(row).collect();
            tx.execute(FILL.of(PROBE_ROWS), rows).await?;
            tx.execute(TOUCH, args![]).await?;
        }
        tx.locks(Locks::LogHead);
        tx.fetch(LOG_HEAD, args![], |_| Ok(())).await?;
        tx.commit().await
    }
}

/// Returns a statement that opens every table and its indexes: the file of one may be missing.
fn every_table() -> Sql {
    let rows = TABLES.map(|table| format!("(SELECT 1 FROM {table} LIMIT 1)"));
    Sql::built(format!("SELECT {}", rows.join(", ")))
}
