//! The database: SQLite or PostgreSQL behind one enum, one SQL text per operation.
//!
//! Reads are methods of [`Store`]; what changes state is a method of [`Tx`], so that a caller
//! decides what is committed together. Times are cut to microseconds on their way in. A key's value
//! never comes here: callers pass its [`Sha256Digest`](crate::keyformat::Sha256Digest), and the
//! database holds that digest mixed with the current pepper.

mod backup;
mod db;
mod definitions;
mod hunted;
mod identity;
mod incidents;
mod keys;
mod log;
mod peppers;
mod queue;
mod requests;
mod senders;
mod sources;
mod stats;
mod tokens;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use backup::{
    BackupError, Candidate, Compared, Contents as BackupContents, Lacking, LackingKey, ValidAgain,
    check_has_no_log, check_unused, database_file, left_beside,
};
pub use db::connect::files_of;
pub use db::error::StoreError;
pub use db::gate::Urgency;
pub use db::page::{Page, PageRequest};
pub use db::retry::{MaybeConflict, retried};
pub use db::tx::Tx;
pub use hunted::{Former, UNNAMED_FORMAT, Unhunted};
pub(crate) use incidents::occurrences::NewSighting;
pub use incidents::occurrences::Occurrence;
pub use incidents::{Incident, IncidentFilter, IncidentStatus};
pub use keys::KeyFilter;
pub use keys::find::KeysByDigest;
pub(crate) use keys::find::LockedKeys;
pub use keys::import::ImportOutcome;
pub(crate) use keys::key::micros;
pub use keys::key::{Key, KeyPatch, NewKey, Owner, OwnerType, WhyInvalid};
pub use keys::lookup::{Lookup, LookupTask};
pub use keys::uses::UseAfterExposure;
pub(crate) use log::LogDraft;
pub use log::canonical::canonical_json;
pub use log::chain::{Broken, Chain, Problem, Verified, VerifyError, verify_lines};
pub(crate) use log::entry::printable;
pub use log::entry::{Action, CSV_HEADER, LogEntry, Place, Reason, log_time};
pub use log::{LogFilter, LogHead};
pub use peppers::{PepperUse, Standing};
pub use queue::backlog::Shedding;
pub use queue::beside::Beside;
pub use queue::counts::{
    FailedTry, HOST_LEFT_ALONE, HostWait, SourceWork, TRIED_AGAIN, WorkCounts, WorkDone,
};
pub use queue::give_back::Postponed;
pub use queue::item::{
    Claimable, DeadItem, Descendant, Fetched, Lane, Lineage, NewWorkItem, Part, Priority, Queue,
    Retry, WorkItem, WorkKind, item_weight,
};
pub use queue::rests::ReadTo;
pub use requests::{NamedRequest, REQUEST_MEMORY, Remembered};
pub use senders::ProvedSender;
pub use sources::SourceState;
pub use sources::deliveries::{Delivery, WebhookCounts};
pub use stats::{Count, KeyCount, Stats};
pub use tokens::{DEFAULT_PROJECT, NewToken, Role, Token};

use crate::keyformat::Peppers;
use db::connect::Db;
use db::ground::Ground;
use db::read::Read;
use db::ready::Ready;
use db::sql::Row;
use db::whole::Whole;

/// Time limit for an operation to get its turn, a connection and the start of its transaction. It is below the
/// 10 s that partners wait for an answer.
const TURN_WAIT: Duration = Duration::from_secs(7);

/// Time limit of a statement, and of a commit.
const STATEMENT_WAIT: Duration = Duration::from_secs(7);

/// Time limit of a statement or commit that nobody waits for.
const HOUSEKEEPING_WAIT: Duration = Duration::from_mins(1);

/// Options for opening a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `sqlite://path/to/file.db` (relative to the working folder) or `postgres://user@host/database`.
    pub url: SecretString,
    /// The secrets mixed into stored digests.
    pub peppers: Peppers,
    /// The most connections to PostgreSQL at a time. SQLite needs no limit.
    pub max_connections: u32,
    /// `true` if a SQLite file that does not exist is created, together with its folder.
    pub create: bool,
    /// `true` if a SQLite file is created even where there was one that is missing or empty now.
    pub init: bool,
}

impl StoreOptions {
    /// Options with the defaults: no peppers, 16 connections, a file is created.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self {
            url: url.into(),
            peppers: Peppers::default(),
            max_connections: 16,
            create: true,
            init: false,
        }
    }

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
    /// Place of a file.
    ground: Option<Ground>,
    peppers: Peppers,
    ready: Ready,
    whole: Whole,
    /// Turns of those that read the whole revocation log, taken for a batch of entries.
    log_turns: Semaphore,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.name)
    }
}

impl Store {
    /// Connects to the database. A SQLite file that does not exist is created together with its folder, if the options
    /// say so; the schema is made by [`Store::migrate`].
    ///
    /// # Errors
    /// Returns [`StoreError::Url`], [`StoreError::Unavailable`], [`StoreError::Missing`], [`StoreError::Disk`],
    /// [`StoreError::Torn`], [`StoreError::Lost`], [`StoreError::ReadOnly`], [`StoreError::Encoding`], and [`StoreError::NewerDatabase`] when
    /// a newer program has migrated the database.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let (db, name, ground) = db::connect::connect(&options).await?;
        let inner = Inner {
            db,
            name,
            ground,
            peppers: options.peppers,
            ready: Ready::default(),
            whole: Whole::default(),
            log_turns: Semaphore::new(log::TURNS),
        };
        let store = Self(Arc::new(inner), Urgency::Awaited);
        let examined = async {
            store.check_ground().await?;
            if store.schema_version().await? == db::migrate::known_version() {
                store.note_objects().await?;
            }
            Ok(())
        };
        if let Err(error) = examined.await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// Applies the migrations that are missing, all or none of them, and returns how many versions the schema went up.
    /// Several processes may call it at once.
    ///
    /// # Errors
    /// Returns any [`StoreError`], among them [`StoreError::NoRoom`]; the schema is then as it was.
    pub async fn migrate(&self) -> Result<i64, StoreError> {
        self.0.db.check_files()?;
        let before = self.schema_version().await?;
        if before < db::migrate::known_version() {
            let is_file = self.0.db.dialect() == db::sql::Dialect::Sqlite;
            if is_file && before > 0 && db::migrate::writes_anew_after(before) {
                // A migration that was killed leaves a large one. Where it cannot be cut it counts.
                let _ = self.cut_wal_now(HOUSEKEEPING_WAIT).await;
                if let Some(lack) = db::space::lack(&self.0.name) {
                    return Err(StoreError::NoRoom {
                        database: self.0.name.clone(),
                        needed: lack.needed,
                        free: lack.free,
                    });
                }
            }
            db::migrate::migrate(&self.0.db, &self.0.name).await?;
            self.0.db.check_files()?;
            let has_just_got_one = !Self::has_identity(before);
            let version = db::migrate::known_version();
            self.check_identity(version, has_just_got_one).await?;
        }
        self.note_objects().await?;
        Ok(db::migrate::known_version() - before)
    }

    /// Returns how many versions the schema is behind the one this program needs.
    ///
    /// # Errors
    /// Returns the errors of [`Store::check_ready`].
    pub async fn missing_migrations(&self) -> Result<i64, StoreError> {
        Ok(db::migrate::known_version() - self.schema_version().await?)
    }

    /// Returns whether the database has no tables of this program yet.
    ///
    /// # Errors
    /// Returns the errors of [`Store::check_ready`].
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        Ok(self.schema_version().await? == 0)
    }

    /// Checks that the database answers and has the schema this program needs.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] and its like, [`StoreError::NotMigrated`], or [`StoreError::NewerDatabase`].
    pub async fn check_ready(&self) -> Result<(), StoreError> {
        let found = self.schema_version().await?;
        let known = db::migrate::known_version();
        if found == known {
            return Ok(());
        }
        Err(StoreError::NotMigrated {
            database: self.0.name.clone(),
            found,
            known,
        })
    }

    /// Returns the version of the database's schema, 0 if it is empty.
    async fn schema_version(&self) -> Result<i64, StoreError> {
        let found = db::migrate::version(&self.0.db, &self.0.name, self.1, self.limit()).await;
        let found = found.map_err(|error| self.renewing(error))?;
        let known = db::migrate::known_version();
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
    /// Returns [`StoreError::Unavailable`] and its like.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Tx::begin(self.clone()).await
    }

    /// Returns the same database for operations that are less urgent, or more: they wait for their turn accordingly.
    #[must_use]
    pub fn with_urgency(&self, urgency: Urgency) -> Self {
        Self(Arc::clone(&self.0), urgency)
    }

    /// Returns the same database for operations that are at most so urgent.
    #[must_use]
    pub fn with_urgency_at_most(&self, urgency: Urgency) -> Self {
        self.with_urgency(urgency.max(self.1))
    }

    /// Returns the deadline by which an operation that starts now has to have its connection.
    fn turn_until(&self) -> Instant {
        Instant::now() + self.limit().max(TURN_WAIT)
    }

    /// Returns the time limit of one answer of the database.
    fn limit(&self) -> Duration {
        match self.1 {
            Urgency::Housekeeping => HOUSEKEEPING_WAIT,
            _ => STATEMENT_WAIT,
        }
    }

    /// Returns the database's name for people: the file's path, or the URL without its password.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the location of the database, independent of the working folder: the file's absolute path, or the URL
    /// without its password.
    pub fn place(&self) -> String {
        let path = match self.0.db.dialect() {
            db::sql::Dialect::Sqlite => std::path::absolute(&self.0.name).ok(),
            db::sql::Dialect::Postgres => None,
        };
        path.map_or_else(|| self.0.name.clone(), |path| path.display().to_string())
    }

    /// Returns the absolute path of a file beside a SQLite database, whose name is that of the database with this suffix.
    /// Returns `None` on PostgreSQL.
    pub fn beside(&self, suffix: &str) -> Option<PathBuf> {
        match self.0.db.dialect() {
            db::sql::Dialect::Sqlite => Some(format!("{}{suffix}", self.place()).into()),
            db::sql::Dialect::Postgres => None,
        }
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

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        // Whatever the driver says of it.
        if let Err(gone) = self.0.db.check_files() {
            return gone;
        }
        let error = self.renewing(StoreError::from_driver(&self.0.name, error));
        match &error {
            StoreError::Emptied { .. } => self.0.whole.lacks(&error),
            StoreError::Forbidden { .. } | StoreError::Pooled { .. } | StoreError::Disk { .. } => {
                self.0.ready.failed(&error);
            }
            _ => {}
        }
        error
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
        fields: &Row<'_>,
        decode: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        decode(fields).map_err(|error| error.in_database(&self.0.name))
    }
}
