//! Minting of access tokens, including the first one of an empty database.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use uuid::Uuid;

use crate::keyformat::{FormatSet, KeyValue, MintError};
use crate::store::DEFAULT_PROJECT;
use crate::store::{MaybeConflict, NewToken, Role, Store, StoreError, retried};

/// Error returned when an access token cannot be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintTokenError {
    /// The configured format is not loaded.
    #[error("issuer.secret names the key format `{0}`, which is not loaded")]
    NoFormat(String),
    /// The format cannot mint, or the operating system provides no randomness.
    #[error("cannot mint an access token: {0}")]
    Mint(#[from] MintError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first access token could not be shown. It was not stored.
    #[error(
        "the first access token cannot be shown: {0}; it was not stored, the next start makes another"
    )]
    Unshown(String),
}

impl MaybeConflict for MintTokenError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}

/// Mints an access token of the project `default` that never expires, in the key format `format`.
///
/// # Errors
/// Returns an error if the configured format is not loaded or cannot mint.
pub fn mint_token(
    formats: &FormatSet,
    format: &str,
    role: Role,
    now: Timestamp,
) -> Result<(NewToken, KeyValue), MintTokenError> {
    let known = formats.get(format);
    let format = known.ok_or_else(|| MintTokenError::NoFormat(format.to_owned()))?;
    let value = format.mint()?;
    let token = NewToken {
        id: Uuid::now_v7(),
        project: DEFAULT_PROJECT.to_owned(),
        digest: value.sha256(),
        role,
        description: String::new(),
        prefix: format.display_prefix().to_owned(),
        last_four: value.last_four().to_owned(),
        created_at: now,
        expires_at: None,
        definition: format.definition(),
    };
    Ok((token, value))
}

/// Shows a token of a store to its administrator. Returns the reason if that is not possible.
pub type Show<'a> = &'a (dyn Fn(&KeyValue, &Store) -> Result<(), String> + Sync);

/// The first access token of an empty database, an administrator's.
#[derive(Debug)]
pub struct FirstToken {
    token: NewToken,
    value: KeyValue,
    is_shown: AtomicBool,
}

impl FirstToken {
    /// Mints the token.
    ///
    /// # Errors
    /// Returns an error if the configured format is not loaded or cannot mint.
    pub fn mint(formats: &FormatSet, format: &str, now: Timestamp) -> Result<Self, MintTokenError> {
        let (mut token, value) = mint_token(formats, format, Role::Admin, now)?;
        "made by the first start".clone_into(&mut token.description);
        Ok(Self {
            token,
            value,
            is_shown: AtomicBool::new(false),
        })
    }

    /// Shows and stores the token, unless the database has a token already. Of several concurrent first starts, only
    /// one shows and stores its token. It is shown once, however often this is called.
    ///
    /// # Errors
    /// Returns an error if the token cannot be shown or stored. It is not stored then.
    pub async fn store(&self, store: &Store, show: Show<'_>) -> Result<(), MintTokenError> {
        if store.any_token_exists().await? {
            return Ok(());
        }
        let stored = retried(|| async {
            let mut tx = store.begin().await?;
            if tx.bootstrap_token(self.token.clone()).await?.is_some() {
                // Before it is committed: a token that was stored but never shown would be lost.
                self.show(store, show)?;
            }
            Ok(tx.commit().await?)
        });
        stored.await
    }

    fn show(&self, store: &Store, show: Show<'_>) -> Result<(), MintTokenError> {
        if !self.is_shown.load(Ordering::Relaxed) {
            show(&self.value, store).map_err(MintTokenError::Unshown)?;
            self.is_shown.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
