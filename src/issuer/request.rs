//! Requests for keys, their names, and why one is refused.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::keyformat::{MintError, Sha256Digest};
use crate::store::{
    Key, MaybeConflict, NamedRequest, Owner, Remembered, StoreError, Tx, WhyInvalid,
};

/// Parameters of a new key.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Project that the key belongs to.
    pub project: String,
    /// Owner of the key.
    pub owner: Owner,
    /// Description given by the owner.
    pub description: String,
    /// Expiry. `None` if the key never expires.
    pub expires_at: Option<Timestamp>,
    /// `true` if the key is meant for client-side code.
    pub is_public: bool,
    /// Policy for a leak, if the key has its own.
    pub policy: Option<String>,
    /// Addresses that are notified of a leak, in addition to the operators.
    pub notify_emails: Vec<String>,
}

/// Parameters of a rotation.
#[derive(Debug, Clone, Copy)]
pub struct RotateRequest<'a> {
    /// Identifier of the key that is replaced.
    pub id: Uuid,
    /// Time for which it stays valid beside its successor.
    pub overlap: Duration,
    /// Actor named in the revocation log.
    pub actor: &'a str,
}

/// Error returned if a key cannot be issued, rotated or changed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The database returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no key with this identifier.
    #[error("there is no key with this identifier")]
    NotFound,
    /// The key is not valid, and only a valid key can be rotated.
    #[error("the key is {}: issue a new one instead", match .0 {
        WhyInvalid::ManuallyRevoked => "revoked",
        WhyInvalid::Expired => "expired",
    })]
    Invalid(WhyInvalid),
    /// The key was rotated before. Holds the identifier of its successor, which can be rotated instead.
    #[error("the key was replaced by {0} already: rotate that one")]
    Replaced(uuid::Uuid),
    /// The key was rotated and ends with its overlap.
    #[error("the key was rotated and ends with its overlap: use its successor")]
    Ending,
    /// The name of the request was given to another one before.
    #[error("another request had this name")]
    Renamed,
    /// The key leaked and is no longer valid.
    #[error("the key has leaked and cannot become valid again: issue a new one")]
    Leaked,
    /// The configuration names a format that is not loaded.
    #[error("the key format `{0}` that [issuer] names is not loaded: add it to the pattern files")]
    NoFormat(String),
    /// The format cannot mint keys, or the operating system provided no randomness.
    #[error(transparent)]
    Mint(#[from] MintError),
}

impl MaybeConflict for IssueError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}

/// Result of a request that may have been sent before.
#[derive(Debug, Clone)]
pub enum Once<T> {
    /// It is new, and was done.
    Done(T),
    /// It was done before, and made this key.
    Before(Box<Key>),
}

/// Returns the key that a request of this name made before. Remembers otherwise that it makes the key `new`.
///
/// # Errors
/// Returns [`IssueError::Renamed`], or any [`StoreError`].
pub(super) async fn done_before(
    tx: &mut Tx,
    named: Option<NamedRequest>,
    new: Uuid,
) -> Result<Option<Box<Key>>, IssueError> {
    let Some(request) = named else {
        return Ok(None);
    };
    match tx.remember_request(&request, new).await? {
        Remembered::New => Ok(None),
        Remembered::Other => Err(IssueError::Renamed),
        Remembered::Made(id) => {
            let key = tx.lock_keys(&[id]).await?.pop();
            Ok(Some(Box::new(key.ok_or(IssueError::NotFound)?)))
        }
    }
}

/// Name that a caller gave to a request, so that it is done once however often it is sent.
#[derive(Debug, Clone, Copy)]
pub struct RequestName([u8; 32]);

impl RequestName {
    /// Creates the name that the holder of an access token gave to a request: those of different tokens differ.
    pub fn new(token: Uuid, text: &[u8]) -> Self {
        // The identifier has a fixed length, so that no two pairs have the same digest.
        Self(Sha256Digest::of(&[token.as_bytes(), text].concat()).0)
    }

    /// Returns the request of this name for a new key.
    pub fn of_issue(self, request: &IssueRequest) -> NamedRequest {
        self.of(&json!([
            "issue",
            request.project,
            request.owner.kind.name(),
            request.owner.id,
            request.description,
            request.expires_at.map(Timestamp::as_microsecond),
            request.is_public,
            request.policy,
            request.notify_emails,
        ]))
    }

    /// Returns the request of this name for a rotation.
    pub fn of_rotation(self, key: Uuid, overlap: Duration) -> NamedRequest {
        self.of(&json!(["rotate", key, overlap.as_secs()]))
    }

    fn of(self, content: &serde_json::Value) -> NamedRequest {
        NamedRequest {
            name: self.0,
            content: Sha256Digest::of(content.to_string().as_bytes()).0,
        }
    }
}
