//! Opening the database: URLs, files, pools, migrations.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, PgPool, SqlSafeStr, SqlitePool};

use super::sql::Dialect;
use super::{StoreError, StoreOptions};

/// How long a statement waits for another process's lock.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long to pause before asking for a lock again that SQLite does not wait for by itself.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// How long an operation waits for a connection. A partner waits 10 s for an answer.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// An open transaction whose client has gone silent holds locks; the server ends it after this.
const IDLE_TRANSACTION: Duration = Duration::from_mins(1);
/// Prepared statements kept per connection: all fixed ones, and the usual lengths of the others.
const STATEMENTS: usize = 256;
/// SQLite's readers. They never wait for the writer.
const SQLITE_READERS: u32 = 4;

/// The pools of either database.
#[derive(Debug)]
pub(super) enum Db {
    /// WAL lets readers go on while the one writer works.
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
    },
    Postgres(PgPool),
}

impl Db {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Connects, and gives the name under which errors speak of the database.
pub(super) async fn connect(options: &StoreOptions) -> Result<(Db, String), StoreError> {
    let text = options.url.expose_secret();
    match text.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => sqlite(text, options.create).await,
        Some("postgres" | "postgresql") => postgres(text, options.max_connections).await,
        Some(scheme) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => Err(StoreError::Url(
            format!("{scheme} is no database that rescind speaks"),
        )),
        _ => Err(StoreError::Url("it names no database system".to_owned())),
    }
}

async fn sqlite(url: &str, create: bool) -> Result<(Db, String), StoreError> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| StoreError::Url(error.to_string()))?
        .foreign_keys(true)
        .busy_timeout(LOCK_WAIT)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging();
    let path = options.get_filename().to_owned();
    if url.contains(":memory:") || url.contains("mode=memory") || path.as_os_str().is_empty() {
        return Err(StoreError::Url(
            "a database in memory would forget revocations".to_owned(),
        ));
    }
    let name = path.display().to_string();
    if !create && !path.exists() {
        return Err(StoreError::Missing { database: name });
    }
    create_file(&path).map_err(|error| StoreError::Disk {
        database: name.clone(),
        cause: error.to_string(),
    })?;
    let writer = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // 32 MiB: imports touch the whole index of digests in random order.
        .pragma("cache_size", "-32768");
    let write = sqlite_pool(&name, 1, writer).await?;
    let read = sqlite_pool(&name, SQLITE_READERS, options.read_only(true)).await?;
    Ok((Db::Sqlite { read, write }, name))
}

/// Connects to a SQLite file. While another process turns a new file into one with a WAL, SQLite
/// answers that it is locked at once, without waiting as it does for every other lock.
async fn sqlite_pool(
    name: &str,
    connections: u32,
    options: SqliteConnectOptions,
) -> Result<SqlitePool, StoreError> {
    let mut tries = LOCK_WAIT.as_millis() / LOCK_PAUSE.as_millis();
    loop {
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(CONNECTION_WAIT);
        let failed = match pool.connect_with(options.clone()).await {
            Ok(pool) => return Ok(pool),
            Err(error) => StoreError::from_driver(name, &error),
        };
        if tries == 0 || !matches!(failed, StoreError::Busy { .. }) {
            return Err(failed);
        }
        tries -= 1;
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Creates the file and its folder so that only their owner can read them. SQLite gives the WAL and
/// the shared memory file the permissions of the main file.
fn create_file(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
        && !folder.exists()
    {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
    }
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    file.open(path).map(drop)
}

async fn postgres(url: &str, max_connections: u32) -> Result<(Db, String), StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| {
            // The parser's own message may quote a password.
            StoreError::Url("it is malformed, or one of its parameters is".to_owned())
        })?
        .application_name("rescind")
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging();
    let name = format!(
        "postgres://{}@{}:{}/{}",
        options.get_username(),
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    );
    // The pool would go on trying a server that refuses until its wait is over, and then say no more
    // than that the wait is over.
    let failed = |error: sqlx::Error| StoreError::from_driver(&name, &error);
    let first = tokio::time::timeout(CONNECTION_WAIT, options.connect())
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(failed)?;
    first.close().await.map_err(failed)?;
    let pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(CONNECTION_WAIT)
        .after_connect(|connection, _| {
            let limits = format!(
                "SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}",
                LOCK_WAIT.as_millis(),
                IDLE_TRANSACTION.as_millis()
            );
            Box::pin(async move {
                connection
                    .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(limits)))
                    .await
                    .map(drop)
            })
        })
        .connect_lazy_with(options);
    Ok((Db::Postgres(pool), name))
}

const SQLITE_MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first", include_str!("migrations/sqlite/0001_first.sql")),
    (
        2,
        "sources",
        include_str!("migrations/sqlite/0002_sources.sql"),
    ),
];
const POSTGRES_MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "first",
        include_str!("migrations/postgres/0001_first.sql"),
    ),
    (
        2,
        "sources",
        include_str!("migrations/postgres/0002_sources.sql"),
    ),
];

/// The newest schema version this program knows.
pub(super) fn known_version() -> i64 {
    SQLITE_MIGRATIONS.last().map_or(0, |(version, ..)| *version)
}

fn migrator(dialect: Dialect) -> Migrator {
    let migrations = match dialect {
        Dialect::Sqlite => SQLITE_MIGRATIONS,
        Dialect::Postgres => POSTGRES_MIGRATIONS,
    };
    let mut migrator = Migrator::with_migrations(
        migrations
            .iter()
            .map(|(version, name, sql)| {
                let sql = sql.into_sql_str();
                Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
            })
            .collect(),
    );
    // The transaction around it is the lock: on PostgreSQL a session's lock would outlive a failure.
    migrator.set_locking(false);
    migrator
}

/// Applies what is missing, all or nothing, one process at a time.
pub(super) async fn migrate(db: &Db, name: &str) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError::from_driver(name, &error);
    let migrator = migrator(db.dialect());
    let outcome = match db {
        Db::Sqlite { write, .. } => {
            let mut tx = write.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            let outcome = migrator.run_direct(None, &mut *tx, false).await;
            if outcome.is_ok() {
                tx.commit().await.map_err(failed)?;
            }
            outcome
        }
        Db::Postgres(pool) => {
            let mut tx = pool.begin().await.map_err(failed)?;
            // Any constant does, as long as every version of this program uses the same.
            sqlx::query("SELECT pg_advisory_xact_lock(7234615531)")
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            let outcome = migrator.run_direct(None, &mut *tx, false).await;
            if outcome.is_ok() {
                tx.commit().await.map_err(failed)?;
            }
            outcome
        }
    };
    outcome.map_err(|error| migration_failed(name, error))
}

fn migration_failed(name: &str, error: MigrateError) -> StoreError {
    let database = name.to_owned();
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            StoreError::from_driver(name, &error)
        }
        MigrateError::VersionMissing(found) => StoreError::NewerDatabase {
            database,
            found,
            known: known_version(),
        },
        other => StoreError::Corrupt {
            database,
            cause: other.to_string(),
        },
    }
}

/// The schema version of the database; 0 when it is empty.
pub(super) async fn version(db: &Db, name: &str) -> Result<i64, StoreError> {
    const VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
    let version = match db {
        Db::Sqlite { read, .. } => {
            let exists = "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
            match sqlx::query_scalar::<_, i64>(exists).fetch_one(read).await {
                Ok(0) => Ok(0),
                Ok(_) => sqlx::query_scalar(VERSION).fetch_one(read).await,
                Err(error) => Err(error),
            }
        }
        Db::Postgres(pool) => {
            let exists = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
            match sqlx::query_scalar::<_, bool>(exists).fetch_one(pool).await {
                Ok(false) => Ok(0),
                Ok(true) => sqlx::query_scalar(VERSION).fetch_one(pool).await,
                Err(error) => Err(error),
            }
        }
    };
    version.map_err(|error| StoreError::from_driver(name, &error))
}
