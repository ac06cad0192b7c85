//! What is kept of a key, and of whom it belongs to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::keyformat::Sha256Digest;

/// Whether a key belongs to a user or to a team: exactly one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnerType {
    /// A single user.
    User,
    /// A team of users.
    Team,
}

impl OwnerType {
    /// `user` or `team`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Team => "team",
        }
    }

    /// Reads `user` or `team`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "team" => Some(Self::Team),
            _ => None,
        }
    }
}

/// Whom a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// User or team.
    pub kind: OwnerType,
    /// The provider's identifier of the user or team; any text.
    pub id: String,
}

impl Owner {
    /// The user with this identifier.
    pub fn user(id: impl Into<String>) -> Self {
        Self {
            kind: OwnerType::User,
            id: id.into(),
        }
    }

    /// The team with this identifier.
    pub fn team(id: impl Into<String>) -> Self {
        Self {
            kind: OwnerType::Team,
            id: id.into(),
        }
    }
}

/// Why a key is no longer accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyInvalid {
    /// It was revoked: by its owner, an operator, or because it leaked.
    ManuallyRevoked,
    /// Its time is over, be it the end of a rotation's overlap.
    Expired,
}

/// A key as the database knows it: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// A version 7 UUID.
    pub id: Uuid,
    /// The project it belongs to.
    pub project: String,
    /// The identifier of its key format.
    pub format: String,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What its owner calls it.
    pub description: String,
    /// Meant for client-side code: never scanned for, never revoked by a report.
    pub is_public: bool,
    /// What a redacted key shows before the `…`.
    pub prefix: String,
    /// The value's last four characters.
    pub last_four: String,
    /// What happens on a leak, where the key has a policy of its own.
    pub policy: Option<String>,
    /// Who is told of a leak besides the operators.
    pub notify_emails: Vec<String>,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it ends; never, if absent.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was first seen in public. Checks from then on are uses after exposure.
    pub exposed_at: Option<Timestamp>,
    /// The key that took its place in a rotation.
    pub replaced_by: Option<Uuid>,
}

impl Key {
    /// Why the key is not accepted at `now`; `None` when it is. Revocation outweighs expiry.
    pub fn why_invalid(&self, now: Timestamp) -> Option<WhyInvalid> {
        if self.revoked_at.is_some() {
            return Some(WhyInvalid::ManuallyRevoked);
        }
        self.expires_at
            .is_some_and(|end| end <= now)
            .then_some(WhyInvalid::Expired)
    }
}

/// A key to be stored.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// A version 7 UUID.
    pub id: Uuid,
    /// The project it belongs to, made if need be.
    pub project: String,
    /// SHA-256 of its value.
    pub digest: Sha256Digest,
    /// The identifier of its key format.
    pub format: String,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What its owner calls it.
    pub description: String,
    /// Meant for client-side code.
    pub is_public: bool,
    /// What a redacted key shows before the `…`.
    pub prefix: String,
    /// The value's last four characters.
    pub last_four: String,
    /// What happens on a leak, where the key has a policy of its own.
    pub policy: Option<String>,
    /// Who is told of a leak besides the operators.
    pub notify_emails: Vec<String>,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it ends; never, if absent.
    pub expires_at: Option<Timestamp>,
}

impl NewKey {
    /// The key as it will be read back.
    pub(super) fn stored(self) -> Key {
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

/// Cuts a time to what the database keeps.
pub(super) fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// What may be changed of a key.
#[derive(Debug, Clone, Default)]
pub struct KeyPatch {
    /// A new description.
    pub description: Option<String>,
    /// A new end; `Some(None)` for never.
    pub expires_at: Option<Option<Timestamp>>,
}

impl KeyPatch {
    /// Whether anything is to be changed.
    pub fn changes(&self) -> bool {
        self.description.is_some() || self.expires_at.is_some()
    }
}
