//! Opening of the database: URLs, files and pools.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Postgres, Sqlite};
use tokio::time::Instant;

use super::super::{StoreError, StoreOptions};
use super::address;
use super::damage::Damage;
use super::files::Files;
use super::gate::Urgency;
use super::ground::{Ground, survey};
use super::marker::beside;
use super::others;
use super::pool::{GOODBYE, Manners, Pool};
use super::session;
use super::space as room;
use super::sql::Dialect;
use crate::memory;

/// Maximum time that a statement waits for another process's lock. Shorter than its deadline, so that it is the
/// database that reports what was waited for.
pub(in crate::store) const LOCK_WAIT: Duration = Duration::from_secs(6);
/// Maximum time to wait for a first connection.
pub(in crate::store) const CONNECTION_WAIT: Duration = Duration::from_secs(7);
/// Maximum time to wait for another process that turns a new file into a database, or migrates one.
pub(in crate::store) const MIGRATION_LOCK_WAIT: Duration = Duration::from_mins(1);
/// Age at which connections to PostgreSQL are replaced.
const LIFETIME: Duration = Duration::from_mins(30);
/// The only encoding of PostgreSQL that stores every character of a report. `SQL_ASCII` stores any bytes, but takes
/// each of them for a character.
const ENCODING: &str = "UTF8";
/// Number of prepared statements that are kept per connection: all fixed ones, and the usual lengths of the others.
const STATEMENTS: usize = 256;
/// Number of connections that read from SQLite. They never wait for the writer.
const SQLITE_READERS: u32 = 4;
/// Number of further ones, for lists alone: a statement cannot be stopped, and a costly one must not keep those from
/// reading that look up a token or a key.
const SQLITE_LISTERS: u32 = 2;
const _: () = assert!((SQLITE_READERS + SQLITE_LISTERS) as usize == memory::READERS);
/// Number of 4 KiB pages from which SQLite's write-ahead log is copied into the database, and size in bytes to which
/// the log is truncated when it restarts.
const WAL_PAGES: u32 = 1_000;
const WAL_KEPT: u64 = 16 << 20;

/// Files beside a SQLite database, by the suffixes of their names.
const BESIDE: [(&str, &str); 5] = [
    ("the write-ahead log of the database", "-wal"),
    ("the shared memory of the database", "-shm"),
    ("the journal of the database", "-journal"),
    ("the identity of the database", ".id"),
    ("the first access token of the database", ".admin-token"),
];

/// Pools of either database.
#[derive(Debug)]
pub(in crate::store) enum Db {
    /// WAL mode lets readers continue while the only writer works.
    Sqlite {
        read: Pool<Sqlite>,
        lists: Pool<Sqlite>,
        write: Pool<Sqlite>,
        files: Files,
    },
    Postgres(Pool<Postgres>),
}

impl Db {
    pub(in crate::store) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Checks that writes go to files that will still exist afterward, and that are not known to be damaged.
    pub(in crate::store) fn check_files(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { files, .. } => files.check_sound(),
            Self::Postgres(pool) => pool.check_undamaged(),
        }
    }

    pub(in crate::store) fn hurry(&self) {
        match self {
            Self::Sqlite {
                read, lists, write, ..
            } => {
                read.hurry();
                lists.hurry();
                write.hurry();
            }
            Self::Postgres(pool) => pool.hurry(),
        }
    }

    /// Replaces every connection: they were opened when the database accepted no changes. SQLite's connections share
    /// what they know of the files, so all of them are closed before a new one is opened.
    pub(in crate::store) fn renew(&self) {
        match self {
            Self::Sqlite {
                read, lists, write, ..
            } => {
                if !write.renew() {
                    return;
                }
                let (read, lists, pool) = (read.clone(), lists.clone(), write.clone());
                write.in_background(async move {
                    let until = Instant::now() + CONNECTION_WAIT;
                    // A writer may read meanwhile, so it is waited for first.
                    if let Ok(writer) = pool.empty(until).await {
                        let readers = read.empty(until).await;
                        let listers = lists.empty(until).await;
                        drop((listers, readers, writer));
                    }
                });
            }
            Self::Postgres(pool) => {
                pool.renew();
            }
        }
    }

    pub(in crate::store) async fn close(&self) {
        match self {
            Self::Sqlite {
                read, lists, write, ..
            } => {
                take_over(write).await;
                read.close().await;
                lists.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Copies SQLite's write-ahead log into the database file. SQLite does this itself when its last connection is closed,
/// but that may belong to another program, or may not be closed in time, and people copy the file alone.
async fn take_over(write: &Pool<Sqlite>) {
    let until = Instant::now() + GOODBYE;
    if let Ok(mut held) = write.acquire(Urgency::Awaited, until).await {
        // Waits for no one. Whatever it leaves behind is still in the log.
        let _ = held.run(GOODBYE, "PRAGMA wal_checkpoint(PASSIVE)").await;
    }
}

/// Connects to the database. Returns its name for errors, and the place of a file.
pub(in crate::store) async fn connect(
    options: &StoreOptions,
) -> Result<(Db, String, Option<Ground>), StoreError> {
    let text = options.url.expose_secret();
    match text.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => sqlite(text, options).await,
        Some("postgres" | "postgresql") => {
            let (db, name) = postgres(text, options.max_connections).await?;
            Ok((db, name, None))
        }
        Some(scheme) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => Err(StoreError::Url(
            format!("{scheme} is no database that rescind speaks"),
        )),
        _ => Err(StoreError::Url("it names no database system".to_owned())),
    }
}

async fn sqlite(
    url: &str,
    store: &StoreOptions,
) -> Result<(Db, String, Option<Ground>), StoreError> {
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
    let ground = survey(&path, store.create, store.init)?;
    others::check(&path).await?;
    create_file(&path).map_err(|error| {
        let (database, cause) = (name.clone(), error.to_string());
        if room::is_for_lack_of_room(&error) {
            StoreError::Full { database, cause }
        } else {
            StoreError::Disk { database, cause }
        }
    })?;
    let writer = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", cache(memory::WRITER_CACHE))
        .pragma("wal_autocheckpoint", WAL_PAGES.to_string())
        .pragma("journal_size_limit", WAL_KEPT.to_string());
    let files = Files::new(&path);
    let write = sqlite_pool(&files, 1, writer).await?;
    files.opened();
    let reader = options
        .read_only(true)
        .pragma("cache_size", cache(memory::READER_CACHE));
    let read = sqlite_pool(&files, SQLITE_READERS, reader.clone()).await?;
    let lists = sqlite_pool(&files, SQLITE_LISTERS, reader).await?;
    let db = Db::Sqlite {
        read,
        lists,
        write,
        files,
    };
    Ok((db, name, Some(ground)))
}

/// Returns the size of a connection's cache as SQLite wants it: in KiB, as a negative number.
fn cache(bytes: usize) -> String {
    format!("-{}", bytes >> 10)
}

/// Connects to a SQLite file. A pool of one connection is the writer's.
async fn sqlite_pool(
    files: &Files,
    connections: u32,
    options: SqliteConnectOptions,
) -> Result<Pool<Sqlite>, StoreError> {
    let pool = Pool::new(
        options,
        Manners {
            size: connections,
            set_up: None,
            too_many: None,
            may_die: false,
            keeps_place: true,
            lifetime: None,
            files: Some(files.clone()),
            damage: files.damage().clone(),
            writes: connections == 1,
        },
    );
    // While another process switches a new file to WAL mode, SQLite reports that it is locked at once, without waiting
    // as it does for every other lock.
    match pool.try_out(MIGRATION_LOCK_WAIT).await {
        Ok(()) => Ok(pool),
        Err(error) => Err(StoreError::from_driver(files.name(), &error)),
    }
}

/// Creates the file with permissions for its owner only. SQLite gives the WAL and the shared memory file the
/// permissions of the main file.
fn create_file(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    file.open(path).map(drop)
}

/// Returns the path of the SQLite file that a URL names.
pub(in crate::store) fn sqlite_file(url: &str) -> Result<PathBuf, StoreError> {
    let options = SqliteConnectOptions::from_str(url);
    let options = options.map_err(|error| StoreError::Url(error.to_string()))?;
    let path = options.get_filename();
    Ok(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// Returns the files of the SQLite database that a URL names, there or not, and what they are. There are none on a
/// server.
pub fn files_of(url: &SecretString) -> Vec<(&'static str, PathBuf)> {
    let url = url.expose_secret();
    if !url.starts_with("sqlite:") {
        return Vec::new();
    }
    let Ok(database) = sqlite_file(url) else {
        return Vec::new();
    };
    // SQLite puts its files beside the file, not beside a link to it.
    let itself = database.canonicalize().unwrap_or_else(|_| database.clone());
    let mut files = vec![("the database itself", database.clone())];
    for (what, suffix) in BESIDE {
        files.extend([&itself, &database].map(|database| (what, beside(database, suffix))));
    }
    files
}

/// Returns the name of the database on a server that a URL names, without the password.
pub(in crate::store) fn server_name(url: &str) -> Result<String, StoreError> {
    address::parse(url).map(|(_, name)| name)
}

async fn postgres(url: &str, max_connections: u32) -> Result<(Db, String), StoreError> {
    let (options, name) = address::parse(url)?;
    let options = options
        .application_name("rescind")
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging();
    let pool = Pool::new(
        options.clone(),
        Manners {
            size: max_connections,
            set_up: Some(session::settings(LOCK_WAIT)),
            too_many: Some((session::too_many(max_connections), session::TOO_MANY)),
            may_die: true,
            keeps_place: false,
            lifetime: Some(LIFETIME),
            files: None,
            damage: Damage::new(name.clone()),
            writes: false,
        },
    );
    let encoding = async {
        pool.try_out(CONNECTION_WAIT).await?;
        let until = Instant::now() + CONNECTION_WAIT;
        let mut held = pool.acquire(Urgency::Awaited, until).await?;
        let sql = "SELECT pg_catalog.current_setting('server_encoding')";
        held.value::<String>(CONNECTION_WAIT, sql).await
    };
    let encoding = match encoding.await {
        Ok(encoding) => encoding,
        Err(error) => return Err(StoreError::from_driver(&name, &error)),
    };
    let refused = if encoding != ENCODING {
        StoreError::Encoding {
            database: name.clone(),
            encoding,
        }
    } else if session::is_shared(&pool, &options).await {
        StoreError::Pooled {
            database: name.clone(),
            cause: "two connections at the same time had one session".to_owned(),
        }
    } else {
        return Ok((Db::Postgres(pool), name));
    };
    pool.close().await;
    Err(refused)
}
