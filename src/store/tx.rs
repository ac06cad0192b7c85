//! Transactions: everything that changes state.

use std::fmt;

use sqlx::{Postgres, Sqlite};
use tokio::time::Instant;

use super::connect::Db;
use super::order::Locks;
use super::pool::{Held, is_silence};
use super::sql::{Arg, Dialect, Fields, Sql, postgres_args, sqlite_args};
use super::{Read, Store, StoreError};

/// An open transaction: everything that changes state. What it did is kept by [`Tx::commit`] only.
///
/// After a statement that failed nothing more can be done in it: it may have ended there and then, as with
/// SQLite on a full disk. Its connection is used again only when the transaction is known to be over.
pub struct Tx {
    open: Option<OpenTx>,
    failed: bool,
    /// Rows were changed: without that, a commit proves nothing about the disk.
    changed: bool,
    pub(super) store: Store,
    /// What was locked last, in the order that all transactions keep to.
    pub(super) locked: Option<Locks>,
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
    pub(super) async fn begin(store: Store) -> Result<Self, StoreError> {
        let until = store.turn_until();
        let open = match &store.0.db {
            Db::Sqlite { write, .. } => match write.acquire(store.1, until).await {
                Ok(mut held) => {
                    let left = until.saturating_duration_since(Instant::now());
                    match held.run(left, "BEGIN IMMEDIATE").await {
                        Ok(()) => Ok(OpenTx::Sqlite(held)),
                        Err(error) => {
                            held.give_up();
                            Err(lock_kept(&store, &error))
                        }
                    }
                }
                Err(error) => Err(store.failed(&error)),
            },
            Db::Postgres(pool) => match pool.acquire(store.1, until).await {
                Ok(mut held) => {
                    // The server gives up a little later than this program, and then for itself: when
                    // the connection between them is cut.
                    let limit = store.limit();
                    let timeout = limit.as_millis() + 1_000;
                    let begin = format!("BEGIN; SET LOCAL statement_timeout = {timeout}");
                    match held.run(limit, begin).await {
                        Ok(()) => Ok(OpenTx::Postgres(held)),
                        Err(error) => {
                            held.give_up();
                            Err(store.failed(&error))
                        }
                    }
                }
                Err(error) => Err(store.failed(&error)),
            },
        };
        let open = Some(open.inspect_err(|error| store.0.ready.failed(error))?);
        Ok(Self {
            open,
            failed: false,
            changed: false,
            store,
            locked: None,
        })
    }

    /// Makes everything done in this transaction permanent.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing is kept then, unless the database did not answer in time: whether
    /// it keeps the changes or not is unknown then.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    /// Undoes everything done in this transaction, now rather than when the connection is used again.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing is kept then either.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), StoreError> {
        if self.failed {
            // Dropping it undoes what is left of it. PostgreSQL would answer a commit with success.
            return match how {
                "ROLLBACK" => Ok(()),
                _ => Err(over(&self.store)),
            };
        }
        let limit = self.store.limit();
        let ended = match self.open.take() {
            Some(OpenTx::Sqlite(mut held)) => end(&mut held, limit, how).await,
            Some(OpenTx::Postgres(mut held)) => end(&mut held, limit, how).await,
            None => return Err(over(&self.store)),
        };
        match ended {
            Ok(()) if how == "COMMIT" && self.changed => self.store.0.ready.committed(),
            Ok(()) => {}
            Err(error) => return Err(self.failure(&error)),
        }
        Ok(())
    }

    fn dialect(&self) -> Dialect {
        self.store.0.db.dialect()
    }

    /// Runs a statement; gives the number of rows it changed.
    pub(super) async fn execute(&mut self, sql: Sql, args: Vec<Arg>) -> Result<u64, StoreError> {
        let text = sql.text(self.dialect()).into_owned();
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

    /// Notes that nothing more can be done in this transaction.
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
        decode: impl Fn(&mut Fields<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let text = sql.text(self.dialect()).into_owned();
        let limit = self.store.limit();
        match self.open_tx()? {
            OpenTx::Sqlite(held) => {
                let rows = match sqlite_args(args) {
                    Ok(args) => held.fetch(limit, text, args).await,
                    Err(error) => Err(error),
                };
                let rows = rows.map_err(|error| self.failure(&error))?;
                rows.iter()
                    .map(|row| self.store.decode(&mut Fields::sqlite(row), &decode))
                    .collect()
            }
            OpenTx::Postgres(held) => {
                let rows = match postgres_args(args) {
                    Ok(args) => held.fetch(limit, text, args).await,
                    Err(error) => Err(error),
                };
                let rows = rows.map_err(|error| self.failure(&error))?;
                rows.iter()
                    .map(|row| self.store.decode(&mut Fields::postgres(row), &decode))
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

/// Whatever goes wrong here, the state of the transaction is unknown.
async fn end<DB: sqlx::Database>(
    held: &mut Held<DB>,
    limit: std::time::Duration,
    how: &'static str,
) -> Result<(), sqlx::Error>
where
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
{
    let ended = held.run(limit, how).await;
    if ended.is_err() {
        held.give_up();
    }
    ended
}

/// SQLite answers a `BEGIN IMMEDIATE` once it has the write lock.
fn lock_kept(store: &Store, error: &sqlx::Error) -> StoreError {
    if is_silence(error) {
        return StoreError::Busy {
            database: store.0.name.clone(),
            cause: "another program holds its write lock".to_owned(),
        };
    }
    store.failed(error)
}

fn over(store: &Store) -> StoreError {
    StoreError::Other {
        database: store.0.name.clone(),
        cause: "a statement of this transaction failed before".to_owned(),
    }
}
