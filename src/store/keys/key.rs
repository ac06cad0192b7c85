//! Stored attributes of keys and their owners.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::keyformat::{Definition, Sha256Digest};

named! {
    /// Type of the owner of a key.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum OwnerType {
        /// A single user.
        User = "user",
        /// A team of users.
        Team = "team",
    }
}

/// Owner of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Type of the owner.
    pub kind: OwnerType,
    /// The provider's identifier of the user or team. Any text.
    pub id: String,
}

impl Owner {
    /// Creates the user with this identifier.
    pub fn user(id: impl Into<String>) -> Self {
        Self {
            kind: OwnerType::User,
            id: id.into(),
        }
    }

    /// Creates the team with this identifier.
    pub fn team(id: impl Into<String>) -> Self {
        Self {
            kind: OwnerType::Team,
            id: id.into(),
        }
    }
}

/// Reason why a key is no longer accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyInvalid {
    /// The key was revoked: by its owner, by an operator, or because it leaked.
    ManuallyRevoked,
    /// The key has expired, possibly at the end of a rotation's overlap.
    Expired,
}

/// A key as stored in the database: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Project that the key belongs to.
    pub project: String,
    /// Identifier of the key format.
    pub format: String,
    /// Owner of the key.
    pub owner: Owner,
    /// Description given by the owner.
    pub description: String,
    /// `true` if the key is meant for client-side code. Such a key is never scanned for, and never revoked by a report.
    pub is_public: bool,
    /// Part of the value that a redacted key shows before the `…`.
    pub prefix: String,
    /// Last four characters of the value.
    pub last_four: String,
    /// Policy that is applied on a leak. `None` if the key has no policy of its own.
    pub policy: Option<String>,
    /// Addresses that are notified of a leak in addition to the operators.
    pub notify_emails: Vec<String>,
    /// Time of issue.
    pub created_at: Timestamp,
    /// Time of expiry. `None` if the key never expires.
    pub expires_at: Option<Timestamp>,
    /// Time of the revocation. `None` if the key has not been revoked.
    pub revoked_at: Option<Timestamp>,
    /// Time at which the key was first seen in public. Checks from then on are uses after exposure.
    pub exposed_at: Option<Timestamp>,
    /// Key that replaced this one in a rotation.
    pub replaced_by: Option<Uuid>,
}

impl Key {
    /// Returns why the key is not accepted at `now`, or `None` if it is. Revocation takes precedence over expiry.
    ///
    /// A secret key that was seen in public and is not revoked had expired by then. It stays so, even if the clock was
    /// ahead at that time.
    pub fn why_invalid(&self, now: Timestamp) -> Option<WhyInvalid> {
        if self.revoked_at.is_some() {
            return Some(WhyInvalid::ManuallyRevoked);
        }
        let was_seen = self.exposed_at.is_some() && !self.is_public;
        (was_seen || self.is_expired(now)).then_some(WhyInvalid::Expired)
    }

    /// Returns whether the time of expiry has come at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// A key to be stored.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Project that the key belongs to. Created if it does not exist.
    pub project: String,
    /// SHA-256 of the value.
    pub digest: Sha256Digest,
    /// Identifier of the key format.
    pub format: String,
    /// Owner of the key.
    pub owner: Owner,
    /// Description given by the owner.
    pub description: String,
    /// `true` if the key is meant for client-side code.
    pub is_public: bool,
    /// Part of the value that a redacted key shows before the `…`.
    pub prefix: String,
    /// Last four characters of the value.
    pub last_four: String,
    /// Policy that is applied on a leak. `None` if the key has no policy of its own.
    pub policy: Option<String>,
    /// Addresses that are notified of a leak in addition to the operators.
    pub notify_emails: Vec<String>,
    /// Time of issue.
    pub created_at: Timestamp,
    /// Time of expiry. `None` if the key never expires.
    pub expires_at: Option<Timestamp>,
    /// Definition of the format in which the key was minted. `None` if that is not known, as of keys that are imported.
    pub definition: Option<Definition>,
}

impl NewKey {
    /// Returns the key as it will be read back.
    pub(in crate::store) fn stored(self) -> Key {
        Key {
            id: self.id,
            project: self.project,
            format: self.format,
            owner: self.owner,
            description: self.description,
            is_public: self.is_public,
            prefix: self.prefix,
            last_four: self.last_four,
            policy: self.policy,
            notify_emails: self.notify_emails,
            created_at: micros(self.created_at),
            expires_at: self.expires_at.map(micros),
            revoked_at: None,
            exposed_at: None,
            replaced_by: None,
        }
    }
}

/// Truncates a time to microseconds, the resolution of the database.
pub(crate) fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// Changes to a key.
#[derive(Debug, Clone, Default)]
pub struct KeyPatch {
    /// New description, if it is to be changed.
    pub description: Option<String>,
    /// New time of expiry, if it is to be changed. `Some(None)` removes the expiry.
    pub expires_at: Option<Option<Timestamp>>,
}

impl KeyPatch {
    /// Returns whether there is anything to change.
    pub fn changes(&self) -> bool {
        self.description.is_some() || self.expires_at.is_some()
    }
}
