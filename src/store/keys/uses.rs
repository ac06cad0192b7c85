//! Uses after exposure: checks of a key after it was seen in public.

use jiff::Timestamp;
use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{args, one, statements};
use super::super::{Read, Store, StoreError, Tx};

/// Maximum number of uses stored per key. Beyond it, only the count of the incident increases.
const USES_MAX: u64 = 1_000;
/// Maximum length of a client address, in characters. Callers forward what they like.
const ADDRESS_MAX: usize = 64;

/// A check of a leaked key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseAfterExposure {
    /// Time of the check.
    pub at: Timestamp,
    /// Address of the client that used the key, if the provider's back end forwarded it.
    pub client_address: Option<String>,
}

statements! {
    COUNT = "UPDATE incidents SET uses = uses + 1 WHERE key_id = $1 RETURNING uses";
    INSERT = "INSERT INTO uses_after_exposure (id, key_id, at, client_address)
        VALUES ($1, $2, $3, $4)";
    OF_KEY = "SELECT at, client_address FROM uses_after_exposure WHERE key_id = $1
        ORDER BY at, id LIMIT $2";
}

impl Store {
    /// Records a check of a leaked key. Does nothing for a key without an incident.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn record_use(
        &self,
        key: Uuid,
        at: Timestamp,
        client_address: Option<&str>,
    ) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.record_use(key, at, client_address).await?;
            tx.commit().await
        })
        .await
    }

    /// Returns the recorded uses of a key after its exposure, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn uses_after_exposure(
        &self,
        key: Uuid,
        limit: u32,
    ) -> Result<Vec<UseAfterExposure>, StoreError> {
        let mut read = self;
        read.fetch(OF_KEY, args![key, limit], |row| {
            Ok(UseAfterExposure {
                at: row.time("at")?,
                client_address: row.get("client_address")?,
            })
        })
        .await
    }
}

impl Tx {
    /// Like [`Store::record_use`], within a transaction.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn record_use(
        &mut self,
        key: Uuid,
        at: Timestamp,
        client_address: Option<&str>,
    ) -> Result<(), StoreError> {
        self.locks(Locks::Incidents);
        let count = self.fetch_first(COUNT, args![key], one::count).await?;
        if count.is_none_or(|count| count > USES_MAX) {
            return Ok(());
        }
        let address: Option<String> =
            client_address.map(|address| address.chars().take(ADDRESS_MAX).collect());
        let args = args![Uuid::now_v7(), key, at, address];
        self.execute(INSERT, args).await.map(drop)
    }
}
