//! The schema as it was when the database was opened, and whether it still is that.
//!
//! A backup that is put back makes the tables first, fills them then, and adds constraints, indexes and triggers last.
//! Before it has ended, a key may not be there yet, and its leak would be nobody's. So whoever finds that a table is
//! missing, or that it is another one than before, has everything refused until all is there that was.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{Database, Executor, Postgres, Row as _};
use tokio::time::Instant;

use super::super::{Store, StoreError};
use super::connect::Db;
use super::pool::Held;

/// Time between two examinations of a schema that is not whole.
const EXAMINED: Duration = Duration::from_secs(1);

/// Number of missing objects that an error names.
const NAMED: usize = 3;

/// Names of all tables.
pub(super) const TABLES: [&str; 21] = [
    "_sqlx_migrations",
    "definitions",
    "hunters",
    "idempotent_requests",
    "incidents",
    "keys",
    "log_head",
    "occurrences",
    "peppers",
    "projects",
    "revocation_log",
    "scanned_blobs",
    "sender_key",
    "senders",
    "source_work",
    "sources",
    "store_identity",
    "tokens",
    "uses_after_exposure",
    "webhook_deliveries",
    "work_items",
];

/// Objects that the migrations make, as they are read by [`Store::objects`].
const SQLITE: &str = include_str!("../migrations/sqlite_objects.txt");
const POSTGRES: &str = include_str!("../migrations/postgres_objects.txt");

/// Identity of the tables whose rows are looked up when a leak is reported: an identifier is not used again for a table
/// that is made anew.
const IDENTITY: &str = "SELECT (COALESCE(pg_catalog.to_regclass('keys')::oid::bigint, 0) << 32)
    | COALESCE(pg_catalog.to_regclass('tokens')::oid::bigint, 0)";

const SQLITE_OBJECTS: &str =
    "SELECT type || ' ' || name || CASE type WHEN 'table' THEN '' ELSE ' of ' || tbl_name END
    FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'";

/// Constraints `NOT NULL` have names in PostgreSQL 18 and newer only. A trigger that is disabled is as good as none.
fn postgres_objects() -> String {
    let tables = TABLES.map(|name| format!("('{name}')")).join(", ");
    format!(
        "WITH ours AS MATERIALIZED (
            SELECT name, pg_catalog.to_regclass(name)::oid AS oid FROM (VALUES {tables}) AS wanted (name))
        SELECT 'table ' || name FROM ours WHERE oid IS NOT NULL
        UNION ALL SELECT 'constraint ' || conname || ' of ' || name FROM pg_catalog.pg_constraint
            JOIN ours ON conrelid = ours.oid WHERE contype IN ('c', 'f', 'p', 'u')
        UNION ALL SELECT 'index ' || relname || ' of ' || name FROM pg_catalog.pg_index
            JOIN ours ON indrelid = ours.oid JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid
            WHERE indisvalid AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint
                WHERE conindid = indexrelid AND contype IN ('p', 'u'))
        UNION ALL SELECT 'trigger ' || tgname || ' of ' || name FROM pg_catalog.pg_trigger
            JOIN ours ON tgrelid = ours.oid WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
    )
}

/// Returns whether a statement looks up whose a value is. All that do so ask for digests.
pub(super) fn looks_up(statement: &str) -> bool {
    statement.contains("digest IN")
}

/// Knowledge of the schema. Shared by all clones of a store.
#[derive(Debug, Default)]
pub(in crate::store) struct Whole {
    known: Mutex<Known>,
    examined: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Objects that were there when the database was opened. `None` before it is migrated.
    objects: Option<BTreeSet<String>>,
    /// PostgreSQL's [`IDENTITY`].
    identity: Option<i64>,
    /// The first error of a table that was not there, or not the one that was, until all is there again.
    lack: Option<StoreError>,
}

impl Whole {
    /// Has everything refused until the schema is whole.
    pub(in crate::store) fn lacks(&self, error: &StoreError) {
        let mut known = self.known();
        if known.lack.is_none() {
            tracing::error!(%error, "nothing is accepted until all is there again");
            known.lack = Some(error.clone());
        }
    }

    /// Returns the error that has everything refused, if there is one.
    pub(super) fn lack(&self) -> Option<StoreError> {
        self.known().lack.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Notes what there is, once, if the schema is the one that this program needs.
    pub(in crate::store) async fn note_objects(&self) -> Result<(), StoreError> {
        if self.0.whole.known().objects.is_some() {
            return Ok(());
        }
        let objects = self.objects().await?;
        let identity = self.identity().await?;
        let mut known = self.0.whole.known();
        known.objects = Some(objects);
        known.identity = identity;
        Ok(())
    }

    /// Returns what the migrations make and this database lacks: tables, constraints, indexes and triggers.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn missing_objects(&self) -> Result<Vec<String>, StoreError> {
        let made = match &self.0.db {
            Db::Sqlite { .. } => SQLITE,
            Db::Postgres(_) => POSTGRES,
        };
        let found = self.objects().await?;
        let missing = made.lines().filter(|object| !found.contains(*object));
        Ok(missing.map(str::to_owned).collect())
    }

    /// Checks that no table was found missing or changed, or that all is there again meanwhile. Nobody is answered from
    /// tables that are being filled.
    pub(in crate::store) async fn check_whole(&self) -> Result<(), StoreError> {
        if self.0.whole.lack().is_none() {
            return Ok(());
        }
        let mut examined = self.0.whole.examined.lock().await;
        let Some(lack) = self.0.whole.lack() else {
            return Ok(());
        };
        if examined.is_some_and(|at| at.elapsed() < EXAMINED) {
            return Err(lack);
        }
        let result = self.examine().await;
        *examined = Some(Instant::now());
        if result.is_ok() {
            self.0.whole.known().lack = None;
            tracing::info!("all tables of the database are there again");
        }
        result
    }

    /// Checks that the tables in which a leak is looked up are those that were opened. They were if they still are when this asks
    /// afterward.
    pub(super) async fn check_same(&self, held: &mut Held<Postgres>) -> Result<(), StoreError> {
        let Some(expected) = self.0.whole.known().identity else {
            return Ok(());
        };
        let found: Result<i64, _> = held.value(self.limit(), IDENTITY).await;
        if found.map_err(|error| self.failed(&error))? == expected {
            return Ok(());
        }
        let cause = "they were removed, or made anew, while it was open";
        let error = self.emptied(cause.to_owned());
        self.0.whole.lacks(&error);
        Err(error)
    }

    /// Like [`Store::check_same`], on a connection of its own.
    pub(super) async fn check_tables_are_the_same(&self) -> Result<(), StoreError> {
        let Db::Postgres(pool) = &self.0.db else {
            return Ok(());
        };
        let acquired = pool.acquire(self.1, self.turn_until()).await;
        let mut held = acquired.map_err(|error| self.failed(&error))?;
        self.check_same(&mut held).await
    }

    /// Checks that everything is there that was when the database was opened, and takes it as it is then. Locks no
    /// table before that: whoever puts a backup back holds locks, and would be one of two that wait for each other.
    async fn examine(&self) -> Result<(), StoreError> {
        let identity = self.identity().await?;
        let objects = self.objects().await?;
        let missing: Vec<String> = match &self.0.whole.known().objects {
            Some(noted) => noted.difference(&objects).cloned().collect(),
            None => Vec::new(),
        };
        if !missing.is_empty() {
            return Err(self.emptied(named(&missing)));
        }
        match self.check_ready().await {
            Err(StoreError::NotMigrated { found: 0, .. }) => {
                return Err(self.emptied("there is none of them any more".to_owned()));
            }
            checked => checked?,
        }
        self.check_statements().await?;
        // Asked for before the rest, so that a table that was made anew since then is noticed by whoever looks it up.
        self.0.whole.known().identity = identity;
        Ok(())
    }

    fn emptied(&self, cause: String) -> StoreError {
        StoreError::Emptied {
            database: self.0.name.clone(),
            cause,
        }
    }

    async fn identity(&self) -> Result<Option<i64>, StoreError> {
        let Db::Postgres(pool) = &self.0.db else {
            return Ok(None);
        };
        let asked = async {
            let mut held = pool.acquire(self.1, self.turn_until()).await?;
            held.value(self.limit(), IDENTITY).await
        };
        let identity: Result<i64, sqlx::Error> = asked.await;
        identity.map(Some).map_err(|error| self.failed(&error))
    }

    /// Returns the names of all tables, constraints, indexes and triggers of this program that there are.
    async fn objects(&self) -> Result<BTreeSet<String>, StoreError> {
        let until = self.turn_until();
        let objects = async {
            match &self.0.db {
                Db::Sqlite { read, .. } => {
                    let mut held = read.acquire(self.1, until).await?;
                    texts(&mut held, self.limit(), SQLITE_OBJECTS.to_owned()).await
                }
                Db::Postgres(pool) => {
                    let mut held = pool.acquire(self.1, until).await?;
                    texts(&mut held, self.limit(), postgres_objects()).await
                }
            }
        };
        let objects: Result<_, sqlx::Error> = objects.await;
        objects.map_err(|error| self.failed(&error))
    }
}

/// Returns the texts that a statement yields.
async fn texts<DB: Database>(
    held: &mut Held<DB>,
    limit: Duration,
    sql: String,
) -> Result<BTreeSet<String>, sqlx::Error>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: sqlx::IntoArguments<DB> + 'static,
    String: for<'r> sqlx::Decode<'r, DB> + sqlx::Type<DB>,
    usize: sqlx::ColumnIndex<DB::Row>,
{
    let rows = held
        .fetch(limit, sql.into(), DB::Arguments::default())
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

fn named(missing: &[String]) -> String {
    let first = &missing[..missing.len().min(NAMED)];
    match missing.len() - first.len() {
        0 => first.join(", "),
        more => format!("{}, and {more} more", first.join(", ")),
    }
}
