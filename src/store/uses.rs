//! Uses after exposure: checks of a key after it was seen in public.

use jiff::Timestamp;
use uuid::Uuid;

use super::order::Locks;
use super::retry::retried;
use super::sql::{args, one, statements};
use super::{Read, Store, StoreError, Tx};

/// The most uses kept of one key. Beyond it only the incident's count goes up.
const USES_MAX: u64 = 1_000;
/// The longest client address that is kept, in characters; callers forward what they like.
const ADDRESS_MAX: usize = 64;

/// A check of a key that had leaked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseAfterExposure {
    /// When the key was checked.
    pub at: Timestamp,
    /// The client that used it, if the provider's back end forwarded its address.
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
    /// Records that a leaked key was checked. A key without an incident is left alone.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
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

    /// The recorded uses of a key after its exposure, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn uses_after_exposure(
        &self,
        key: Uuid,
        limit: u32,
    ) -> Result<Vec<UseAfterExposure>, StoreError> {
        let mut read = self;
        read.fetch(OF_KEY, args![key, limit], |row| {
            Ok(UseAfterExposure {
                at: row.time()?,
                client_address: row.next()?,
            })
        })
        .await
    }
}

impl Tx {
    /// As [`Store::record_use`], within a transaction.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
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
