//! The database: SQLite or PostgreSQL behind one enum, one SQL text per operation.
//!
//! Reads are methods of [`Store`]; what changes state is a method of [`Tx`], so that a caller
//! decides what is committed together. Times are cut to microseconds on their way in. A key's value
//! never comes here: callers pass its [`Sha256Digest`](crate::keyformat::Sha256Digest), and the
//! database holds that digest mixed with the current pepper.

mod again;
mod ahead;
mod backlog;
mod blobs;
mod chain;
mod claim;
mod connect;
mod deliveries;
mod entry;
mod error;
mod files;
mod find;
mod gate;
mod held;
mod holders;
mod import;
mod incidents;
mod key;
mod keys;
mod log;
mod lookup;
mod migrate;
mod occurrences;
mod order;
mod page;
mod pool;
mod prune;
mod queue;
mod ready;
mod retry;
mod room;
mod senders;
mod shelf;
mod source_work;
mod sources;
mod sql;
mod tokens;
mod turns;
mod tx;
mod uses;
mod verify;
mod wal;
mod work;
mod work_row;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

pub use chain::{Broken, Chain, Problem, Verified, VerifyError, canonical_json, verify_lines};
pub use deliveries::{Delivery, WebhookCounts};
pub use entry::{Action, CSV_HEADER, LogEntry, Place, Reason, log_time};
pub use error::StoreError;
pub use find::KeysByDigest;
pub use gate::Urgency;
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
pub use retry::{MaybeConflict, retried};
pub use senders::ProvedSender;
pub use sources::SourceState;
pub use tokens::{NewToken, Role, Token};
pub use turns::owner;
pub use tx::Tx;
pub use uses::UseAfterExposure;
pub use work::{
    Claimable, DeadItem, Descendant, Fetched, HOST_LEFT_ALONE, HostWait, Lane, Lineage,
    NewWorkItem, Priority, Queue, Retry, Shedding, SourceWork, WorkCounts, WorkDone, WorkItem,
    WorkKind,
};

use crate::keyformat::Peppers;
use connect::Db;
use ready::Ready;
use sql::{Arg, Fields, Sql, postgres_args, sqlite_args};

/// How long an operation waits for its turn, for a connection and for the begin of its transaction. Whoever
/// waits 10 s for an answer, as partners do, gets one.
const TURN_WAIT: Duration = Duration::from_secs(7);

/// How long a statement may take, and how long a commit.
const STATEMENT_WAIT: Duration = Duration::from_secs(7);

/// The same for what nobody waits for.
const HOUSEKEEPING_WAIT: Duration = Duration::from_mins(1);

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

impl StoreOptions {
    /// Returns whether the database is on a server, which may be there later than this program.
    pub fn is_on_a_server(&self) -> bool {
        let url = self.url.expose_secret();
        url.starts_with("postgres:") || url.starts_with("postgresql:")
    }
}

/// The database. Cheap to clone; all clones share the connections.
///
/// No operation waits for the database without end. One that gets no answer in time fails with
/// [`StoreError::Unavailable`], one that does not get its turn with [`StoreError::Busy`]; the connection is
/// closed and replaced then.
#[derive(Clone)]
pub struct Store(Arc<Inner>, Urgency);

struct Inner {
    db: Db,
    name: String,
    /// It is a file that was there before it was opened.
    found: bool,
    peppers: Peppers,
    ready: Ready,
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
        let (db, name, found) = connect::connect(&options).await?;
        let inner = Inner {
            db,
            name,
            found,
            peppers: options.peppers,
            ready: Ready::default(),
        };
        let store = Self(Arc::new(inner), Urgency::Awaited);
        store.schema_version().await?;
        Ok(store)
    }

    /// Applies the migrations that are missing, all or none of them; says how many versions the
    /// schema went up. Several processes may call it at once.
    ///
    /// # Errors
    /// Any [`StoreError`], among them [`StoreError::NoRoom`]; the schema is then as it was.
    pub async fn migrate(&self) -> Result<i64, StoreError> {
        self.0.db.check_files()?;
        let before = self.schema_version().await?;
        if before < migrate::known_version() {
            let is_file = self.0.db.dialect() == sql::Dialect::Sqlite;
            if is_file && before == 0 && self.0.found {
                tracing::warn!(
                    file = self.place(),
                    "a new database is made in a file that was there and holds none: if there should be keys, it is \
                     the wrong file, or a copy without its -wal"
                );
            }
            if is_file && before > 0 && migrate::writes_anew_after(before) {
                // A migration that was killed leaves a large one. Where it cannot be cut it counts.
                let _ = self.cut_wal_now(HOUSEKEEPING_WAIT).await;
                room::check(&self.0.name)?;
            }
            migrate::migrate(&self.0.db, &self.0.name).await?;
            self.0.db.check_files()?;
        }
        Ok(migrate::known_version() - before)
    }

    /// Returns how many versions the schema is behind the one this program needs.
    ///
    /// # Errors
    /// As [`Store::check_ready`].
    pub async fn missing_migrations(&self) -> Result<i64, StoreError> {
        Ok(migrate::known_version() - self.schema_version().await?)
    }

    /// Returns whether the database has no tables of this program yet.
    ///
    /// # Errors
    /// As [`Store::check_ready`].
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        Ok(self.schema_version().await? == 0)
    }

    /// Whether the database answers and has the schema this program needs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and its like, [`StoreError::NotMigrated`],
    /// [`StoreError::NewerDatabase`].
    pub async fn check_ready(&self) -> Result<(), StoreError> {
        let found = self.schema_version().await?;
        let known = migrate::known_version();
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
        let found = migrate::version(&self.0.db, &self.0.name, self.1, self.limit()).await;
        let found = found.map_err(|error| self.renewing(error))?;
        let known = migrate::known_version();
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
        Tx::begin(self.clone()).await
    }

    /// The same database for operations that are less urgent, or more: they wait for their turn accordingly.
    #[must_use]
    pub fn with_urgency(&self, urgency: Urgency) -> Self {
        Self(Arc::clone(&self.0), urgency)
    }

    /// When an operation that begins now must have its connection.
    fn turn_until(&self) -> Instant {
        Instant::now() + self.limit().max(TURN_WAIT)
    }

    /// How long the database may take for one answer.
    fn limit(&self) -> Duration {
        match self.1 {
            Urgency::Awaited | Urgency::Work => STATEMENT_WAIT,
            Urgency::Housekeeping => HOUSEKEEPING_WAIT,
        }
    }

    /// The database's name for people: the file's path, or the URL without its password.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the database is, wherever this program was started: the file's absolute path, or the URL without its
    /// password.
    pub fn place(&self) -> String {
        let path = match self.0.db.dialect() {
            sql::Dialect::Sqlite => std::path::absolute(&self.0.name).ok(),
            sql::Dialect::Postgres => None,
        };
        path.map_or_else(|| self.0.name.clone(), |path| path.display().to_string())
    }

    /// Lets no operation take longer than a moment from here on: the program is shutting down, and must
    /// not wait for a database that does not answer.
    pub fn hurry(&self) {
        self.0.db.hurry();
    }

    /// Closes every connection, after the statements that are running. One that does not end within a
    /// moment is left behind.
    pub async fn close(&self) {
        self.0.db.close().await;
        self.0.ready.forget().await;
    }

    /// Prepares every statement of this program against the database, without running any; gives
    /// their number. A schema that somebody changed by hand shows here.
    ///
    /// # Errors
    /// [`StoreError::Other`] naming the statement that the database refuses.
    pub async fn check_statements(&self) -> Result<usize, StoreError> {
        let families = [
            keys::ALL,
            find::ALL,
            import::ALL,
            tokens::ALL,
            incidents::ALL,
            occurrences::ALL,
            uses::ALL,
            log::ALL,
            verify::ALL,
            queue::ALL,
            turns::ALL,
            again::ALL,
            ahead::ALL,
            claim::ALL,
            holders::ALL,
            backlog::ALL,
            sources::ALL,
            deliveries::ALL,
            source_work::ALL,
            blobs::ALL,
            senders::ALL,
            ready::ALL,
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
        // As an explanation the text differs from that of a statement that was prepared before, which
        // would be given back from the connection's cache, unchecked.
        let text = format!("EXPLAIN {}", sql.text(self.0.db.dialect()));
        let (until, limit) = (self.turn_until(), self.limit());
        match &self.0.db {
            Db::Sqlite { write, .. } => {
                let mut held = write.acquire(self.1, until).await?;
                // SQLite compares the schema it has in memory with the file's when a statement runs.
                held.run(limit, "SELECT COUNT(*) FROM sqlite_master")
                    .await?;
                held.prepare(limit, text).await
            }
            Db::Postgres(pool) => {
                let mut held = pool.acquire(self.1, until).await?;
                held.prepare(limit, text).await
            }
        }
    }

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        // Whatever the driver says of it.
        if let Err(gone) = self.0.db.check_files() {
            return gone;
        }
        self.renewing(StoreError::from_driver(&self.0.name, error))
    }

    /// Has the connections replaced where this error may last as long as they do.
    fn renewing(&self, error: StoreError) -> StoreError {
        if let StoreError::ReadOnly { .. } = error {
            self.0.db.renew();
        }
        error
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
        let text = sql.text(self.0.db.dialect());
        let (until, limit) = (self.turn_until(), self.limit());
        match &self.0.db {
            Db::Sqlite { read, .. } => {
                let args = sqlite_args(args).map_err(failed)?;
                let mut held = read.acquire(self.1, until).await.map_err(failed)?;
                let rows = held.fetch(limit, text, args).await.map_err(failed)?;
                drop(held);
                rows.iter()
                    .map(|row| self.decode(&mut Fields::sqlite(row), &decode))
                    .collect()
            }
            Db::Postgres(pool) => {
                let args = postgres_args(args).map_err(failed)?;
                let mut held = pool.acquire(self.1, until).await.map_err(failed)?;
                let rows = held.fetch(limit, text, args).await.map_err(failed)?;
                drop(held);
                rows.iter()
                    .map(|row| self.decode(&mut Fields::postgres(row), &decode))
                    .collect()
            }
        }
    }
}
