//! Transactions, which all changes of state go through.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use sqlx::{Postgres, Sqlite};
use tokio::time::Instant;

use super::super::{Read, Store, StoreError};
use super::connect::Db;
use super::order::{Locked, Locks};
use super::pool::{Held, Pool, is_silence};
use super::sql::{Arg, Dialect, Row, Sql, postgres_args, sqlite_args};
use super::whole::looks_up;

/// An open transaction, which all changes of state go through. The changes are kept by [`Tx::commit`] only.
///
/// After a statement has failed, nothing more can be done in the transaction: it may have ended at once, as with SQLite
/// on a full disk. Its connection is used again only when the transaction is known to be over.
pub struct Tx {
    open: Option<OpenTx>,
    failed: bool,
    /// `true` if rows were changed. Otherwise, a commit proves nothing about the disk.
    changed: bool,
    pub(in crate::store) store: Store,
    locked: Locked,
}

enum OpenTx {
    Sqlite(Held<Sqlite>),
    Postgres(Held<Postgres>),
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tx({})", self.store.0.name)
    }
}

impl Tx {
    pub(in crate::store) async fn begin(store: Store) -> Result<Self, StoreError> {
        store.0.db.check_files()?;
        store.check_whole().await?;
        let begun = match &store.0.db {
            Db::Sqlite { write, files, .. } => {
                let begun = begin_sqlite(&store, write).await;
                begun.inspect(|_| files.written()).map(OpenTx::Sqlite)
            }
            Db::Postgres(pool) => begin_postgres(&store, pool).await.map(OpenTx::Postgres),
        };
        match begun {
            Ok(open) => Ok(Self {
                open: Some(open),
                failed: false,
                changed: false,
                store,
                locked: Locked::default(),
            }),
            Err(error) => {
                store.0.ready.failed(&error);
                Err(error)
            }
        }
    }

    /// Records what is locked next, in the order that all transactions keep to.
    ///
    /// # Panics
    /// Panics in debug builds if something that comes later in the order is locked already.
    pub(in crate::store) fn locks(&mut self, next: Locks) {
        self.locked.next(next);
    }

    /// Like [`Tx::locks`], for rows that have to be locked by a single call.
    pub(in crate::store) fn locks_once(&mut self, next: Locks) {
        self.locked.once(next);
    }

    /// Records that what is changed next are rows that are only ever added, for which the order does not matter.
    pub(in crate::store) fn only_adds(&mut self) {
        self.locked.only_adds();
    }

    /// Commits all changes of this transaction.
    ///
    /// # Errors
    /// Returns any [`StoreError`]. Nothing is kept in that case, unless the database did not answer in time: it is then
    /// unknown whether the changes are kept.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    /// Rolls back all changes of this transaction, now rather than when the connection is used again.
    ///
    /// # Errors
    /// Returns any [`StoreError`]. Nothing is kept in that case either.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), StoreError> {
        if self.failed {
            // Dropping it rolls back the rest. PostgreSQL would answer a commit with success.
            return match how {
                "ROLLBACK" => Ok(()),
                _ => Err(over(&self.store)),
            };
        }
        let limit = self.store.limit();
        let ended = match self.open.take() {
            Some(OpenTx::Sqlite(mut held)) => exchange(&mut held, limit, how).await,
            Some(OpenTx::Postgres(mut held)) => exchange(&mut held, limit, how).await,
            None => return Err(over(&self.store)),
        };
        match ended {
            Ok(()) if how == "COMMIT" && self.changed => {
                // Changes to a file that was deleted or replaced do not count as committed.
                self.store.0.db.check_files()?;
                self.store.0.ready.committed();
            }
            Ok(()) => {}
            Err(error) => return Err(self.failure(&error)),
        }
        Ok(())
    }

    fn dialect(&self) -> Dialect {
        self.store.0.db.dialect()
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub(in crate::store) async fn execute(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
    ) -> Result<u64, StoreError> {
        let text = sql.text(self.dialect());
        self.locked.may_change();
        let limit = self.store.limit();
        let done = match self.open_tx()? {
            OpenTx::Sqlite(held) => match sqlite_args(args) {
                Ok(args) => held.execute(limit, text, args).await,
                Err(error) => Err(error),
            }
            .map(|done| done.rows_affected()),
            OpenTx::Postgres(held) => match postgres_args(args) {
                Ok(args) => held.execute(limit, text, args).await,
                Err(error) => Err(error),
            }
            .map(|done| done.rows_affected()),
        };
        let changed = done.map_err(|error| self.failure(&error))?;
        self.changed |= changed > 0;
        Ok(changed)
    }

    fn open_tx(&mut self) -> Result<&mut OpenTx, StoreError> {
        match &mut self.open {
            Some(open) if !self.failed => Ok(open),
            _ => Err(over(&self.store)),
        }
    }

    /// Checks that what was looked up in this transaction stands in the tables that were opened.
    async fn check_same(&mut self) -> Result<(), StoreError> {
        let store = self.store.clone();
        let same = match self.open_tx()? {
            OpenTx::Postgres(held) => store.check_same(held).await,
            OpenTx::Sqlite(_) => Ok(()),
        };
        self.failed |= same.is_err();
        same
    }

    /// Marks the transaction as failed, after which nothing more can be done in it.
    fn failure(&mut self, error: &sqlx::Error) -> StoreError {
        self.failed = true;
        let error = self.store.failed(error);
        self.store.0.ready.failed(&error);
        error
    }
}

impl Read for Tx {
    async fn fetch<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&Row<'_>) -> Result<T, StoreError> + Send + Sync,
    ) -> Result<Vec<T>, StoreError> {
        let text = sql.text(self.dialect());
        let changes = ["UPDATE", "INSERT INTO", "DELETE FROM"];
        if changes.iter().any(|verb| text.contains(verb)) {
            self.locked.may_change();
        }
        let limit = self.store.limit();
        let is_look_up = looks_up(&text);
        match self.open_tx()? {
            OpenTx::Sqlite(held) => {
                let rows = match sqlite_args(args) {
                    Ok(args) => held.fetch(limit, text, args).await,
                    Err(error) => Err(error),
                };
                let rows = rows.map_err(|error| self.failure(&error))?;
                rows.iter()
                    .map(|row| self.store.decode(&Row::Sqlite(row), &decode))
                    .collect()
            }
            OpenTx::Postgres(held) => {
                let rows = match postgres_args(args) {
                    Ok(args) => held.fetch(limit, text, args).await,
                    Err(error) => Err(error),
                };
                let rows = rows.map_err(|error| self.failure(&error))?;
                if is_look_up {
                    self.check_same().await?;
                }
                rows.iter()
                    .map(|row| self.store.decode(&Row::Postgres(row), &decode))
                    .collect()
            }
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        match self.open.take() {
            Some(OpenTx::Sqlite(held)) => held.undo(),
            Some(OpenTx::Postgres(held)) => held.undo(),
            None => {}
        }
    }
}

/// Returns the time that remains for a begin, but at least a second.
fn rest_of(until: Instant) -> Duration {
    let left = until.saturating_duration_since(Instant::now());
    left.max(Duration::from_secs(1))
}

async fn begin_sqlite(store: &Store, write: &Pool<Sqlite>) -> Result<Held<Sqlite>, StoreError> {
    let failed = |error| store.failed(&error);
    let until = store.turn_until();
    let mut held = write.acquire(store.1, until).await.map_err(failed)?;
    // Answered once it has the write lock.
    let begun = exchange(&mut held, rest_of(until), "BEGIN IMMEDIATE").await;
    begun.map_err(|error| {
        if is_silence(&error) {
            StoreError::Busy {
                database: store.0.name.clone(),
                cause: "another program holds its write lock".to_owned(),
            }
        } else {
            store.failed(&error)
        }
    })?;
    Ok(held)
}

async fn begin_postgres(
    store: &Store,
    pool: &Pool<Postgres>,
) -> Result<Held<Postgres>, StoreError> {
    let failed = |error| store.failed(&error);
    let until = store.turn_until();
    let mut held = pool.acquire(store.1, until).await.map_err(failed)?;
    // The server's limit is a little longer than this program's. It takes effect when the connection between them is
    // cut.
    let timeout = store.limit().as_millis() + 1_000;
    let sql = format!("BEGIN; SET LOCAL statement_timeout = {timeout}");
    let begun = exchange(&mut held, rest_of(until), sql).await;
    begun.map_err(failed)?;
    Ok(held)
}

/// Begins or ends a transaction. After any error its state is unknown.
async fn exchange<DB: sqlx::Database>(
    held: &mut Held<DB>,
    limit: Duration,
    sql: impl Into<Cow<'static, str>>,
) -> Result<(), sqlx::Error>
where
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
{
    let done = held.run(limit, sql).await;
    if done.is_err() {
        held.give_up();
    }
    done
}

fn over(store: &Store) -> StoreError {
    StoreError::Other {
        database: store.0.name.clone(),
        cause: "a statement of this transaction failed before".to_owned(),
    }
}
