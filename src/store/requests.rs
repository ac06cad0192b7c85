//! Requests that name themselves (`Idempotency-Key`), remembered with the key that they made, so that one that is sent
//! again makes none.

use std::time::Duration;

use uuid::Uuid;

use super::db::order::Locks;
use super::db::sql::{Row, args, statements};
use super::queue::micros;
use super::{Read as _, Store, StoreError, Tx};

/// Time for which a request is remembered.
pub const REQUEST_MEMORY: Duration = Duration::from_hours(24);

statements! {
    /// A request that is older than `$4` is as good as forgotten. Another transaction with the same one is waited for.
    REMEMBER = "INSERT INTO idempotent_requests (request, content, key_id, created_at) VALUES ($1, $2, $3, {now})
        ON CONFLICT (request) DO UPDATE
            SET content = excluded.content, key_id = excluded.key_id, created_at = excluded.created_at
            WHERE idempotent_requests.created_at < {now} - $4";
    REMEMBERED = "SELECT content, key_id FROM idempotent_requests WHERE request = $1";
    FORGET = "DELETE FROM idempotent_requests WHERE request IN (
        SELECT request FROM idempotent_requests WHERE created_at < {now} - $1 LIMIT $2)";
    THIN_OUT = "DELETE FROM idempotent_requests WHERE request IN (
        SELECT request FROM idempotent_requests ORDER BY created_at DESC, request DESC LIMIT $2 OFFSET $1)";
}

/// A request that creates a key and has a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedRequest {
    /// Digest of its name, and of whoever gave it that.
    pub name: [u8; 32],
    /// Digest of what it asks for.
    pub content: [u8; 32],
}

/// Result of [`Tx::remember_request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// The request is new.
    New,
    /// The same request made the key with this identifier.
    Made(Uuid),
    /// A request of the same name asked for something else.
    Other,
}

impl Tx {
    /// Remembers that a request makes the key `key_id` in this transaction, unless one of its name did within
    /// [`REQUEST_MEMORY`].
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn remember_request(
        &mut self,
        request: &NamedRequest,
        key_id: Uuid,
    ) -> Result<Remembered, StoreError> {
        self.locks(Locks::Requests);
        let args = args![
            request.name,
            request.content,
            key_id,
            micros(REQUEST_MEMORY)
        ];
        if self.execute(REMEMBER, args).await? > 0 {
            return Ok(Remembered::New);
        }
        let before = self.fetch_first(REMEMBERED, args![request.name], remembered);
        match before.await? {
            Some((content, key_id)) if content == request.content => Ok(Remembered::Made(key_id)),
            Some(_) => Ok(Remembered::Other),
            None => Err(StoreError::row("a request was forgotten".to_owned())),
        }
    }
}

impl Store {
    /// Deletes the requests that are older than [`REQUEST_MEMORY`], and returns their number; and all but the latest
    /// `keep` of the others, whose number is returned second.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn forget_requests(&self, keep: u32) -> Result<(u64, u64), StoreError> {
        let age = args![micros(REQUEST_MEMORY)];
        let old = self.in_pieces(Locks::Requests, &FORGET, age).await?;
        let more = self
            .in_pieces(Locks::Requests, &THIN_OUT, args![keep])
            .await?;
        Ok((old, more))
    }
}

fn remembered(row: &Row<'_>) -> Result<([u8; 32], Uuid), StoreError> {
    Ok((row.digest("content")?, row.uuid("key_id")?))
}
