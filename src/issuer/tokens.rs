//! Minting of access tokens, including the first one of an empty database.

use jiff::Timestamp;
use uuid::Uuid;

use crate::keyformat::{FormatSet, KeyValue, MintError};
use crate::store::DEFAULT_PROJECT;
use crate::store::{NewToken, Role, Store, StoreError, retried};

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
    };
    Ok((token, value))
}

/// Mints the first administrator's token. Returns `None` if the database already has a token. Of several concurrent
/// first starts, only one gets a token.
///
/// # Errors
/// Returns an error if the token cannot be minted or stored.
pub async fn bootstrap_token(
    store: &Store,
    formats: &FormatSet,
    format: &str,
    now: Timestamp,
) -> Result<Option<KeyValue>, MintTokenError> {
    if store.any_token_exists().await? {
        return Ok(None);
    }
    let (mut token, value) = mint_token(formats, format, Role::Admin, now)?;
    "made by the first start".clone_into(&mut token.description);
    let stored = retried(|| async {
        let mut tx = store.begin().await?;
        let stored = tx.bootstrap_token(token.clone()).await?;
        tx.commit().await?;
        Ok::<_, StoreError>(stored)
    });
    let stored = stored.await?;
    Ok(stored.map(|_| value))
}
