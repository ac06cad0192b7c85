//! Opening of the database at the start: waits for it and migrates it, while requests are answered and signals handled.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{CLOSING, DaemonError, Signals};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::issuer::MintTokenError;
use crate::keyformat::Peppers;
use crate::server::Entrance;
use crate::store::{Store, StoreError, StoreOptions};

/// Maximum time to wait for a database server that does not answer. In containers both start together.
const PATIENCE: Duration = Duration::from_mins(1);

/// Pauses before a database server is tried again.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(4));

/// Pause before a disk that was full is tried again, and the interval at which the log says that it is full.
const ROOM_PAUSE: Duration = Duration::from_secs(2);
const ROOM_TOLD: Duration = Duration::from_secs(20);

/// Maximum time for a migration to be rolled back.
const UNDOING: Duration = Duration::from_secs(3);

/// Waits for room on the database's disk, for as long as it takes. A service manager restarts a program only a few
/// times, and would leave it down when there is room again.
#[derive(Debug, Default)]
pub(super) struct Room {
    told: Option<Instant>,
}

impl Room {
    /// Pauses before the operation that failed with `error` is repeated.
    ///
    /// # Errors
    /// Returns `error` unless the disk is full, or a file as large as it may be, and [`DaemonError::Stopped`] if a
    /// signal comes.
    pub(super) async fn wait(
        &mut self,
        error: DaemonError,
        entrance: &Entrance,
        signals: &mut Signals,
    ) -> Result<(), DaemonError> {
        let (DaemonError::Store(full) | DaemonError::Token(MintTokenError::Store(full))) = &error
        else {
            return Err(error);
        };
        let (StoreError::Full { database, .. } | StoreError::TooLarge { database, .. }) = full
        else {
            return Err(error);
        };
        // A relative path depends on the directory that the program was started in.
        let place = match std::path::absolute(database) {
            Ok(path) if !database.contains("://") => path.display().to_string(),
            _ => database.clone(),
        };
        entrance.lacks_room();
        if self.told.is_none_or(|told| told.elapsed() >= ROOM_TOLD) {
            self.told = Some(Instant::now());
            tracing::warn!(%place, "waiting for room on the disk, nothing is accepted until then: {full}");
        }
        tokio::select! {
            () = sleep(ROOM_PAUSE) => Ok(()),
            name = signals.next() => Err(stopped(name)),
        }
    }
}

/// Opens the database and migrates it once there is room. Meanwhile `entrance` answers requests, and a signal aborts:
/// what was not committed is rolled back.
pub(super) async fn open(
    config: &Config,
    init: bool,
    address: SocketAddr,
    entrance: &Entrance,
    signals: &mut Signals,
) -> Result<Store, DaemonError> {
    let mut room = Room::default();
    loop {
        let is_first = room.told.is_none();
        match open_once(config, init, address, entrance, signals, is_first).await {
            Ok(store) => return Ok(store),
            Err(error) => room.wait(error, entrance, signals).await?,
        }
    }
}

async fn open_once(
    config: &Config,
    init: bool,
    address: SocketAddr,
    entrance: &Entrance,
    signals: &mut Signals,
    is_first: bool,
) -> Result<Store, DaemonError> {
    let store = tokio::select! {
        connected = connect(config, init) => connected?,
        name = signals.next() => return Err(stopped(name)),
    };
    let prepared = prepare(&store, address, entrance, signals, is_first).await;
    if prepared.is_err() {
        close(&store).await;
    }
    prepared.map(|()| store)
}

/// Migrates the database if necessary, and logs it. Refuses one with keys that would not be found.
async fn prepare(
    store: &Store,
    address: SocketAddr,
    entrance: &Entrance,
    signals: &mut Signals,
    is_first: bool,
) -> Result<(), DaemonError> {
    let is_new = store.is_new().await?;
    let steps = store.missing_migrations().await?;
    if steps > 0 {
        entrance.migrating();
        if is_first {
            tracing::info!(
                database = store.place(),
                steps,
                "the database is being migrated; until then {address} answers that it is"
            );
        }
    }
    let steps = migrate(store, signals).await?;
    store.check_peppers().await?;
    if is_new {
        tracing::warn!(
            database = store.place(),
            "a new database was made, which holds no keys; if there was to be one already, database.url names another \
             one, or the working folder is not the usual one"
        );
    } else if steps > 0 {
        tracing::info!(database = store.place(), steps, "the database was migrated");
    }
    Ok(())
}

/// Migrates the database unless a signal comes. Returns the number of steps.
async fn migrate(store: &Store, signals: &mut Signals) -> Result<i64, DaemonError> {
    let mut migrating = pin!(store.migrate());
    tokio::select! {
        biased;
        migrated = &mut migrating => Ok(migrated?),
        name = signals.next() => {
            store.hurry();
            let _ = timeout(UNDOING, migrating).await;
            Err(stopped(name))
        }
    }
}

fn stopped(signal: &'static str) -> DaemonError {
    tracing::info!(signal, "stopped before the start was complete");
    DaemonError::Stopped(signal)
}

/// Closes the database, unless that takes too long.
pub(super) async fn close(store: &Store) {
    if timeout(CLOSING, store.close()).await.is_err() {
        tracing::warn!(
            "the database was not closed in time: a copy of a SQLite file needs its -wal"
        );
    }
}

/// Connects, retrying while the server is not up yet. A server that refuses will not change its mind.
async fn connect(config: &Config, init: bool) -> Result<Store, StoreError> {
    let options = options(config, init);
    let until = Instant::now() + PATIENCE;
    let mut tries = 0;
    loop {
        let pause = PAUSES.after(tries);
        match Store::open(options.clone()).await {
            Err(
                StoreError::Unavailable { database, cause }
                | StoreError::Crowded { database, cause },
            ) if options.is_on_a_server() && Instant::now() + pause < until => {
                let left = until.duration_since(Instant::now()).as_secs();
                tracing::warn!(database, cause, "waiting for the database, {left} s more");
            }
            opened => return opened,
        }
        sleep(pause).await;
        tries += 1;
    }
}

fn options(config: &Config, init: bool) -> StoreOptions {
    StoreOptions {
        init,
        peppers: Peppers::new(config.keys.peppers.clone()),
        ..StoreOptions::new(config.database.url.clone())
    }
}
