//! The database at the start: waited for, and migrated, while the program can be asked how it is, and stopped.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{CLOSING, DaemonError, MintTokenError, Signals};
use crate::config::Config;
use crate::keyformat::Peppers;
use crate::server::Entrance;
use crate::store::{Store, StoreError, StoreOptions};

/// How long a server that does not answer is waited for. In containers both start together.
const PATIENCE: Duration = Duration::from_mins(1);

/// The pause before a server is asked again: after the first time, and at most.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// The pause before a disk that was full is tried again, and how often the log says that it is.
const ROOM_PAUSE: Duration = Duration::from_secs(2);
const ROOM_TOLD: Duration = Duration::from_secs(20);

/// How long a migration may take to be undone.
const UNDOING: Duration = Duration::from_secs(3);

/// Waits for room on the disk of the database, for as long as it takes: whoever starts this program may do so a few
/// times only, and would leave it down when there is room again.
#[derive(Debug, Default)]
pub(super) struct Room {
    told: Option<Instant>,
}

impl Room {
    /// Waits a moment before whatever failed with `error` is tried again. A signal ends it.
    ///
    /// # Errors
    /// Returns `error` if it is another one than that the disk is full, or [`DaemonError::Stopped`].
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
        let StoreError::Full { database, .. } = full else {
            return Err(error);
        };
        // Where this program was started matters to a path.
        let place = match std::path::absolute(database) {
            Ok(path) if path.exists() => path.display().to_string(),
            _ => database.clone(),
        };
        entrance.lacks_room();
        if self.told.is_none_or(|told| told.elapsed() >= ROOM_TOLD) {
            self.told = Some(Instant::now());
            tracing::warn!(%place, "waiting for room, nothing is accepted until then: {full}");
        }
        tokio::select! {
            () = sleep(ROOM_PAUSE) => Ok(()),
            name = signals.next() => Err(stopped(name)),
        }
    }
}

/// Opens the database and migrates it, when there is room for it. Requests are told by `entrance` meanwhile, and a
/// signal ends it: what was not committed is undone.
pub(super) async fn open(
    config: &Config,
    address: SocketAddr,
    entrance: &Entrance,
    signals: &mut Signals,
) -> Result<Store, DaemonError> {
    let mut room = Room::default();
    loop {
        let is_first = room.told.is_none();
        match open_once(config, address, entrance, signals, is_first).await {
            Ok(store) => return Ok(store),
            Err(error) => room.wait(error, entrance, signals).await?,
        }
    }
}

async fn open_once(
    config: &Config,
    address: SocketAddr,
    entrance: &Entrance,
    signals: &mut Signals,
    is_first: bool,
) -> Result<Store, DaemonError> {
    let store = tokio::select! {
        connected = connect(config) => connected?,
        name = signals.next() => return Err(stopped(name)),
    };
    let prepared = prepare(&store, address, entrance, signals, is_first).await;
    if prepared.is_err() {
        close(&store).await;
    }
    prepared.map(|()| store)
}

/// Migrates the database if that is needed, and says so.
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
    if is_new {
        tracing::info!(database = store.place(), "a new database was made");
    } else if steps > 0 {
        tracing::info!(database = store.place(), steps, "the database was migrated");
    }
    Ok(())
}

/// Migrates, unless a signal comes; gives the number of steps.
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

/// Closes the database, if that does not take long.
pub(super) async fn close(store: &Store) {
    if timeout(CLOSING, store.close()).await.is_err() {
        tracing::warn!(
            "the database was not closed in time: a copy of a SQLite file needs its -wal"
        );
    }
}

/// Connects, with patience for a server that is not there yet. One that refuses will not change its mind.
async fn connect(config: &Config) -> Result<Store, StoreError> {
    let options = options(config);
    let until = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    loop {
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
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn options(config: &Config) -> StoreOptions {
    StoreOptions {
        peppers: Peppers::new(config.keys.peppers.clone()),
        ..StoreOptions::new(config.database.url.clone())
    }
}
