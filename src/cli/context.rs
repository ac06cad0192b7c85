//! Dependencies of the commands that use the database: the configuration, the key formats and the open store.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, UsageError};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Needs};
use crate::issuer::{Issuer, IssuerFormats};
use crate::keyformat::{FormatSet, Peppers};
use crate::respond::Responder;
use crate::scan::Redactor;
use crate::store::{Store, StoreError, StoreOptions};

/// Configuration and open database of a command that neither stores nor looks up keys: it needs no pepper, and no key
/// format.
pub(super) struct Records {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) clock: SharedClock,
}

impl Records {
    /// Loads the configuration and opens the database, which has to be there.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid, or the database cannot be opened or is not ready.
    pub(super) async fn open(context: &Context) -> anyhow::Result<Self> {
        Self::open_for(context, Needs::RECORDS).await
    }

    /// Likewise for a command that needs more of the configuration.
    ///
    /// # Errors
    /// Returns the errors of [`Records::open`].
    pub(super) async fn open_for(context: &Context, needs: Needs) -> anyhow::Result<Self> {
        let config = context.config(needs)?;
        let store = open_store(&config, Empty::Refuse).await?;
        store.check_ready().await?;
        Ok(Self {
            config,
            store,
            clock: Arc::new(SystemClock),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Configuration, key formats and open database of a command.
pub(super) struct Instance {
    pub(super) config: Config,
    pub(super) formats: FormatSet,
    /// Formats in which new keys are minted.
    pub(super) minting: IssuerFormats,
    /// Redactor for keys of these formats.
    pub(super) redactor: Redactor,
    pub(super) store: Store,
    pub(super) clock: SharedClock,
}

/// Treatment of a database without tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// Create the tables: the command is about to store the first row. `init` does so even where there was a store
    /// that is gone.
    SetUp { init: bool },
    /// Refuse: an answer from an empty database would mislead, and the URL is probably wrong.
    Refuse,
}

/// Arguments of the commands that make a store where there is none.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct InitArgs {
    /// Make a new, empty store even where there was one that is missing now
    #[arg(long)]
    pub(super) init: bool,
}

impl InitArgs {
    /// Returns the treatment of a database without tables.
    pub(super) fn set_up(self) -> Empty {
        Empty::SetUp { init: self.init }
    }
}

impl Instance {
    /// Loads the configuration and the key formats, and opens the database for a command that stores keys or access
    /// tokens, or looks them up.
    ///
    /// # Errors
    /// Returns an error if the configuration or the formats are invalid, the database cannot be opened or is not ready,
    /// or there are keys that would not be found.
    pub(super) async fn open(context: &Context, empty: Empty) -> anyhow::Result<Self> {
        Self::open_for(context, empty, Needs::KEYS).await
    }

    /// Likewise for a command that needs more of the configuration.
    ///
    /// # Errors
    /// Returns the errors of [`Instance::open`].
    pub(super) async fn open_for(
        context: &Context,
        empty: Empty,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        let config = context.config(needs)?;
        let formats = context.formats(&config)?;
        let minting = config.issuer_formats(&formats)?;
        let store = open_store(&config, empty).await?;
        match store.check_ready().await {
            Err(StoreError::NotMigrated { found: 0, .. }) if empty != Empty::Refuse => {
                store.migrate().await?;
                announce_new(&store);
            }
            ready => ready?,
        }
        store.check_peppers().await?;
        Ok(Self {
            config,
            redactor: Redactor::new(&formats),
            formats,
            minting,
            store,
            clock: Arc::new(SystemClock),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer::new(self.responder(), self.minting.clone())
    }

    pub(super) fn responder(&self) -> Responder {
        Responder::new(
            self.store.clone(),
            self.formats.clone(),
            Arc::clone(&self.clock),
        )
    }

    /// Checks that texts about to be stored contain no API key. `texts` are pairs of a name for messages and the
    /// text.
    ///
    /// # Errors
    /// Returns an error that names the first text with a key in it.
    pub(super) fn check_texts<'a>(
        &self,
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), UsageError> {
        for (name, text) in texts {
            if self.redactor.holds_key(text) {
                return Err(UsageError(format!(
                    "{name} contains an API key; nothing was stored. Treat that key as leaked and leave it out"
                )));
            }
        }
        Ok(())
    }
}

/// Databases to close when the command ends, however it ends: until then, the contents of a SQLite database may be
/// in its write-ahead log alone.
static OPEN: Mutex<Vec<Store>> = Mutex::new(Vec::new());

/// Says that there is a new store, and where: if that was not wanted, it is noticed now or never.
pub(super) fn announce_new(store: &Store) {
    tracing::warn!(
        database = store.place(),
        "a new database was made, which holds no keys; if there was to be one already, database.url names another one, \
         or the working folder is not the usual one"
    );
}

/// Opens the configured database without examining its schema. Unless `empty` refuses, a SQLite file that does not exist
/// is made.
///
/// # Errors
/// Returns an error if the database cannot be opened.
pub(super) async fn open_store(config: &Config, empty: Empty) -> anyhow::Result<Store> {
    let options = StoreOptions {
        peppers: Peppers::new(config.keys.peppers.clone()),
        create: empty != Empty::Refuse,
        init: empty == Empty::SetUp { init: true },
        ..StoreOptions::new(config.database.url.clone())
    };
    let store = Store::open(options).await?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.push(store.clone());
    Ok(store)
}

/// `SIGXFSZ` on Linux: a write would exceed the process's limit on the size of files. The mere presence of a handler
/// keeps it from killing the process: the write then fails with an error, as on a full disk.
const SIGXFSZ: i32 = 25;

/// Runs the asynchronous part of a command, then closes every database that it opened.
pub(super) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(async {
        let _file_size =
            signal(SignalKind::from_raw(SIGXFSZ)).context("cannot listen for signals")?;
        task.await
    });
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for store in open {
        store.hurry();
        runtime.block_on(store.close());
    }
    // A thread that is still blocked must not keep the process alive.
    runtime.shutdown_background();
    result
}
