//! What the commands that work on the database need: configuration, formats, the open store.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use jiff::Timestamp;

use super::{Context, UsageError};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::keyformat::{FormatSet, Peppers};
use crate::respond::{IssuerFormats, Responder};
use crate::scan::Redactor;
use crate::store::{Store, StoreError, StoreOptions};

/// The open database and everything that explains it.
pub(super) struct House {
    pub(super) config: Config,
    pub(super) formats: FormatSet,
    /// Takes keys of these formats out of texts.
    pub(super) redactor: Redactor,
    pub(super) store: Store,
    pub(super) clock: SharedClock,
}

/// What to do with a database that has no tables yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// Make them: the command is about to store the first thing.
    SetUp,
    /// Refuse: an answer from an empty database would mislead, the URL is probably wrong.
    Refuse,
}

impl House {
    /// Reads the configuration and the formats and opens the database.
    pub(super) async fn open(context: &Context, empty: Empty) -> anyhow::Result<Self> {
        let config = context.config()?;
        let formats = context.formats(&config)?;
        config.check_issuer(&formats)?;
        let store = open_store(&config, empty == Empty::SetUp).await?;
        match store.check_ready().await {
            Err(StoreError::NotMigrated { found: 0, .. }) if empty == Empty::SetUp => {
                store.migrate().await?;
            }
            ready => ready?,
        }
        Ok(Self {
            config,
            redactor: Redactor::new(&formats),
            formats,
            store,
            clock: Arc::new(SystemClock),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn responder(&self) -> Responder {
        Responder::new(
            self.store.clone(),
            self.formats.clone(),
            issuer_formats(&self.config),
            Arc::clone(&self.clock),
        )
    }

    /// Checks texts that are about to be stored: keys do not belong in them.
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

/// The formats that new keys are minted in.
pub(super) fn issuer_formats(config: &Config) -> IssuerFormats {
    IssuerFormats {
        secret: config.issuer.secret.clone(),
        public: config.issuer.public.clone(),
    }
}

/// The databases to be closed at the end of the command, however it ends: a SQLite file has everything in its log
/// until then.
static OPEN: Mutex<Vec<Store>> = Mutex::new(Vec::new());

/// Opens the database of the configuration, without looking at what is in it.
pub(super) async fn open_store(config: &Config, create: bool) -> anyhow::Result<Store> {
    let options = StoreOptions {
        peppers: Peppers::new(config.keys.peppers.clone()),
        create,
        ..StoreOptions::new(config.database.url.clone())
    };
    let store = Store::open(options).await?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.push(store.clone());
    Ok(store)
}

/// Runs the asynchronous part of a command.
pub(super) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(task);
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for store in open {
        store.hurry();
        runtime.block_on(store.close());
    }
    // Whatever still blocks a thread must not keep the process from ending.
    runtime.shutdown_background();
    result
}
