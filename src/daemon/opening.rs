//! The database at the start: waited for, and migrated, while the program can be asked how it is, and stopped.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{CLOSING, DaemonError, Signals};
use crate::config::Config;
use crate::keyformat::Peppers;
use crate::server::Entrance;
use crate::store::{Store, StoreError, StoreOptions};

/// How long a server that does not answer is waited for. In containers both start together.
const PATIENCE: Duration = Duration::from_mins(1);

/// The pause before a server is asked again: after the first time, and at most.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// How long a migration may take to be undone.
const UNDOING: Duration = Duration::from_secs(3);

/// Opens the database and migrates it. Requests are told by `entrance` meanwhile, and a signal ends it: what was not
/// committed is undone.
pub(super) async fn open(
    config: &Config,
    address: SocketAddr,
    entrance: &Entrance,
    signals: &mut Signals,
) -> Result<Store, DaemonError> {
    let store = tokio::select! {
        connected = connect(config) => connected?,
        name = signals.next() => return Err(stopped(name)),
    };
    let steps = store.missing_migrations().await?;
    if steps > 0 {
        entrance.migrating();
        tracing::info!(
            database = store.name(),
            steps,
            "the database is being migrated; until then {address} answers that it is"
        );
    }
    match migrate(&store, signals).await {
        Ok(0) => {}
        Ok(steps) => {
            tracing::info!(database = store.name(), steps, "the database was migrated");
        }
        Err(error) => {
            close(&store).await;
            return Err(error);
        }
    }
    Ok(store)
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
    let options = StoreOptions {
        peppers: Peppers::new(config.keys.peppers.clone()),
        ..StoreOptions::new(config.database.url.clone())
    };
    let until = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    loop {
        match Store::open(options.clone()).await {
            Err(
                StoreError::Unavailable { database, cause } | StoreError::Crowded { database, cause },
            )
                if options.is_on_a_server() && Instant::now() + pause < until =>
            {
                let left = until.duration_since(Instant::now()).as_secs();
                tracing::warn!(database, cause, "waiting for the database, {left} s more");
            }
            opened => return opened,
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
