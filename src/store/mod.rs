//! The database: SQLite or PostgreSQL behind one enum, one SQL text per operation.
//!
//! Reads are methods of [`Store`]; what changes state is a method of [`Tx`], so that a caller
//! decides what is committed together. Times are cut to microseconds on their way in. A key's value
//! never comes here: callers pass its [`Sha256Digest`](crate::keyformat::Sha256Digest), and the
//! database holds that digest mixed with the current pepper.

mod backlog;
mod blobs;
mod chain;
mod connect;
mod deliveries;
mod entry;
mod error;
mod import;
mod incidents;
mod key;
mod keys;
mod log;
mod lookup;
mod occurrences;
mod page;
mod queue;
mod source_work;
mod sources;
mod sql;
mod tokens;
mod uses;
mod work;

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;
use sqlx::{Postgres, Sqlite, Transaction};

pub use chain::{Broken, Chain, Problem, Verified, VerifyError, canonical_json, verify_lines};
pub use deliveries::{Delivery, WebhookCounts};
pub use entry::{Action, CSV_HEADER, LogEntry, Place, Reason, log_time};
pub use error::StoreError;
pub use import::ImportOutcome;
pub use incidents::{Incident, IncidentFilter, IncidentStatus};
pub use key::{Key, KeyPatch, NewKey, Owner, OwnerType, WhyInvalid};
pub use keys::KeyFilter;
pub(crate) use log::LogDraft;
pub use log::{LogFilter, LogHead};
pub use lookup::{Lookup, LookupTask};
pub(crate) use occurrences::NewSighting;
pub use occurrences::Occurrence;
pub use page::{Page, PageRequest};
pub use sources::SourceState;
pub use tokens::{NewToken, Role, Token};
pub use uses::UseAfterExposure;
pub use work::{
    DeadItem, Fetched, NewWorkItem, Priority, Retry, Shedding, SourceWork, WorkCounts, WorkDone,
    WorkItem, WorkKind,
};

use crate::keyformat::Peppers;
use connect::Db;
use sql::{Arg, Dialect, Fields, Sql, postgres_args, sqlite_args};

/// How to open a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `sqlite://path/to/file.db` (relative to the working folder) or `postgres://user@host/database`.
    pub url: SecretString,
    /// The secrets mixed into stored digests.
    pub peppers: Peppers,
    /// The most connections to PostgreSQL at a time. SQLite needs no limit.
    pub max_connections: u32,
    /// Whether a SQLite file that does not exist is created together with its folder.
    pub create: bool,
}

impl StoreOptions {
    /// Options with the defaults: no peppers, 16 connections, a file is created.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self {
            url: url.into(),
            peppers: Peppers::default(),
            max_connections: 16,
            create: true,
        }
    }
}

/// The database. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    db: Db,
    name: String,
    peppers: Peppers,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.name)
    }
}

impl Store {
    /// Connects. A SQLite file that does not exist is created together with its folder, if the options
    /// say so; the schema is made by [`Store::migrate`].
    ///
    /// # Errors
    /// [`StoreError::Url`], [`StoreError::Unavailable`], [`StoreError::Missing`], [`StoreError::Disk`],
    /// [`StoreError::ReadOnly`], and [`StoreError::NewerDatabase`] when a newer program has migrated
    /// the database.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let (db, name) = connect::connect(&options).await?;
        let store = Self(Arc::new(Inner {
            db,
            name,
            peppers: options.peppers,
        }));
        store.schema_version().await?;
        Ok(store)
    }

    /// Applies the migrations that are missing, all or none of them; says how many versions the
    /// schema went up. Several processes may call it at once.
    ///
    /// # Errors
    /// Any [`StoreError`]; the schema is then as it was.
    pub async fn migrate(&self) -> Result<i64, StoreError> {
        let before = self.schema_version().await?;
        if before < connect::known_version() {
            connect::migrate(&self.0.db, &self.0.name).await?;
        }
        Ok(connect::known_version() - before)
    }

    /// Whether the database answers and has the schema this program needs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and its like, [`StoreError::NotMigrated`],
    /// [`StoreError::NewerDatabase`].
    pub async fn check_ready(&self) -> Result<(), StoreError> {
        let found = self.schema_version().await?;
        let known = connect::known_version();
        if found == known {
            return Ok(());
        }
        Err(StoreError::NotMigrated {
            database: self.0.name.clone(),
            found,
            known,
        })
    }

    /// The version of the database's schema; 0 when it is empty.
    async fn schema_version(&self) -> Result<i64, StoreError> {
        let found = connect::version(&self.0.db, &self.0.name).await?;
        let known = connect::known_version();
        if found <= known {
            return Ok(found);
        }
        Err(StoreError::NewerDatabase {
            database: self.0.name.clone(),
            found,
            known,
        })
    }

    /// Begins a transaction. On SQLite it holds the write lock from here on, so keep it short and
    /// never begin another one before it ends. Dropping it without [`Tx::commit`] undoes everything.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and its like.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let open = match &self.0.db {
            Db::Sqlite { write, .. } => write
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map(OpenTx::Sqlite),
            Db::Postgres(pool) => pool.begin().await.map(OpenTx::Postgres),
        };
        let open = open.map_err(|error| self.failed(&error))?;
        Ok(Tx {
            open,
            store: self.clone(),
        })
    }

    /// The database's name for people: the file's path, or the URL without its password.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Closes every connection, after the statements that are running.
    pub async fn close(&self) {
        self.0.db.close().await;
    }

    /// Prepares every statement of this program against the database, without running any; gives
    /// their number. A schema that somebody changed by hand shows here.
    ///
    /// # Errors
    /// [`StoreError::Other`] naming the statement that the database refuses.
    pub async fn check_statements(&self) -> Result<usize, StoreError> {
        let families = [
            keys::ALL,
            import::ALL,
            tokens::ALL,
            incidents::ALL,
            occurrences::ALL,
            uses::ALL,
            log::ALL,
            queue::ALL,
            backlog::ALL,
            sources::ALL,
            deliveries::ALL,
            source_work::ALL,
            blobs::ALL,
        ];
        let lists = [
            keys::every_filter(),
            incidents::every_filter(),
            log::every_filter(),
        ];
        let fixed = families.into_iter().flatten().cloned();
        let mut count = 0;
        for (name, sql) in fixed.chain(lists) {
            self.prepare(&sql.of(2))
                .await
                .map_err(|error| StoreError::Other {
                    database: self.0.name.clone(),
                    cause: format!("{name}: {error}"),
                })?;
            count += 1;
        }
        Ok(count)
    }

    async fn prepare(&self, sql: &Sql) -> Result<(), sqlx::Error> {
        use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};
        // As an explanation the text differs from that of a statement that was prepared before, which
        // would be given back from the connection's cache, unchecked.
        let text = format!("EXPLAIN {}", sql.text(self.0.db.dialect()));
        let text = AssertSqlSafe(text).into_sql_str();
        match &self.0.db {
            Db::Sqlite { write, .. } => {
                let mut connection = write.acquire().await?;
                // SQLite compares the schema it has in memory with the file's when a statement runs.
                connection
                    .execute("SELECT COUNT(*) FROM sqlite_master")
                    .await?;
                connection.prepare(text).await.map(drop)
            }
            Db::Postgres(pool) => pool.prepare(text).await.map(drop),
        }
    }

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        StoreError::from_driver(&self.0.name, error)
    }

    fn decode<T>(
        &self,
        fields: &mut Fields<'_>,
        decode: impl Fn(&mut Fields<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        decode(fields).map_err(|error| error.in_database(&self.0.name))
    }
}

/// What runs a query: the store itself for a read, or an open transaction.
trait Read: Send {
    /// All rows of a query, decoded.
    fn fetch<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&mut Fields<'_>) -> Result<T, StoreError> + Send,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// The first row of a query, decoded.
    fn fetch_first<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&mut Fields<'_>) -> Result<T, StoreError> + Send,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send {
        async move { Ok(self.fetch(sql, args, decode).await?.into_iter().next()) }
    }
}

impl Read for &Store {
    async fn fetch<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&mut Fields<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let failed = |error: sqlx::Error| self.failed(&error);
        let text = sqlx::AssertSqlSafe(sql.text(self.0.db.dialect()));
        match &self.0.db {
            Db::Sqlite { read, .. } => {
                let args = sqlite_args(args).map_err(failed)?;
                let query = sqlx::query_with::<Sqlite, _>(text, args);
                let rows = query.fetch_all(read).await.map_err(failed)?;
                rows.iter()
                    .map(|row| self.decode(&mut Fields::sqlite(row), &decode))
                    .collect()
            }
            Db::Postgres(pool) => {
                let args = postgres_args(args).map_err(failed)?;
                let query = sqlx::query_with::<Postgres, _>(text, args);
                let rows = query.fetch_all(pool).await.map_err(failed)?;
                rows.iter()
                    .map(|row| self.decode(&mut Fields::postgres(row), &decode))
                    .collect()
            }
        }
    }
}

/// An open transaction: everything that changes state. What it did is kept by [`Tx::commit`] only.
pub struct Tx {
    open: OpenTx,
    store: Store,
}

enum OpenTx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tx({})", self.store.0.name)
    }
}

impl Tx {
    /// Makes everything done in this transaction permanent.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing is kept then.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.open {
            OpenTx::Sqlite(tx) => tx.commit().await,
            OpenTx::Postgres(tx) => tx.commit().await,
        }
        .map_err(|error| self.store.failed(&error))
    }

    /// Undoes everything done in this transaction, now rather than when the connection is used again.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing is kept then either.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self.open {
            OpenTx::Sqlite(tx) => tx.rollback().await,
            OpenTx::Postgres(tx) => tx.rollback().await,
        }
        .map_err(|error| self.store.failed(&error))
    }

    fn dialect(&self) -> Dialect {
        self.store.0.db.dialect()
    }

    /// Runs a statement; gives the number of rows it changed.
    async fn execute(&mut self, sql: Sql, args: Vec<Arg>) -> Result<u64, StoreError> {
        let text = sqlx::AssertSqlSafe(sql.text(self.dialect()));
        let failed = |error: sqlx::Error| self.store.failed(&error);
        match &mut self.open {
            OpenTx::Sqlite(tx) => {
                let args = sqlite_args(args).map_err(failed)?;
                let query = sqlx::query_with::<Sqlite, _>(text, args);
                let done = query.execute(&mut **tx).await.map_err(failed)?;
                Ok(done.rows_affected())
            }
            OpenTx::Postgres(tx) => {
                let args = postgres_args(args).map_err(failed)?;
                let query = sqlx::query_with::<Postgres, _>(text, args);
                let done = query.execute(&mut **tx).await.map_err(failed)?;
                Ok(done.rows_affected())
            }
        }
    }
}

impl Read for Tx {
    async fn fetch<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&mut Fields<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let text = sqlx::AssertSqlSafe(sql.text(self.dialect()));
        let store = &self.store;
        let failed = |error: sqlx::Error| store.failed(&error);
        match &mut self.open {
            OpenTx::Sqlite(tx) => {
                let args = sqlite_args(args).map_err(failed)?;
                let query = sqlx::query_with::<Sqlite, _>(text, args);
                let rows = query.fetch_all(&mut **tx).await.map_err(failed)?;
                rows.iter()
                    .map(|row| store.decode(&mut Fields::sqlite(row), &decode))
                    .collect()
            }
            OpenTx::Postgres(tx) => {
                let args = postgres_args(args).map_err(failed)?;
                let query = sqlx::query_with::<Postgres, _>(text, args);
                let rows = query.fetch_all(&mut **tx).await.map_err(failed)?;
                rows.iter()
                    .map(|row| store.decode(&mut Fields::postgres(row), &decode))
                    .collect()
            }
        }
    }
}
