//! Response to leaked keys: from candidate to key, incident, revocation and log entry, in one transaction.
//!
//! A key's value found in public, whether by a scan, a partner's report or a stranger, arrives here as a
//! [`Sighting`]. [`Responder::report`] looks up a whole batch, records where the keys were seen, opens or extends
//! their incidents, revokes the secret keys that are still valid, and appends to the revocation log: either all of
//! it or nothing. Reporting the same sighting again only changes the number of sightings.
//!
//! Keys are also issued, rotated, changed and revoked manually here. Rotations and revocations are logged in the same
//! transaction.

mod answer;
mod candidates;
mod clean;
mod keys;
mod redact;
mod report;
mod timeline;

use crate::clock::SharedClock;
use crate::keyformat::{FormatSet, MintError};
use crate::scan::Redactor;
use crate::store::{MaybeConflict, Store, StoreError, WhyInvalid};

pub use answer::{Answer, Outcome, announce};
pub use candidates::{Candidates, Line, PlaceIndex, Placed, SharedPlace};
#[cfg(test)]
pub(crate) use clean::Cleaner;
pub use clean::{CleanSighting, CleanSightings};
pub use keys::{IssueRequest, Rotation};
pub use redact::{PATH_MAX, REPOSITORY_MAX, URL_MAX, shorten};
pub use report::{Report, Sighting};
pub use timeline::{IncidentDetail, Moment, What};

/// The policy of this version: a leaked secret key is revoked at once.
pub const POLICY_REVOKE: &str = "revoke";

/// Identifiers of the key formats in which new keys are minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerFormats {
    /// Format of secret keys and access tokens.
    pub secret: String,
    /// Format of public keys.
    pub public: String,
}

/// Operations on keys and their leaks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Responder {
    store: Store,
    formats: FormatSet,
    redactor: Redactor,
    issuer: IssuerFormats,
    clock: SharedClock,
}

impl Responder {
    /// Creates a responder for the keys in `store`.
    pub fn new(
        store: Store,
        formats: FormatSet,
        issuer: IssuerFormats,
        clock: SharedClock,
    ) -> Self {
        Self {
            store,
            redactor: Redactor::new(&formats),
            formats,
            issuer,
            clock,
        }
    }

    /// Returns the key store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the formats in which new keys are minted.
    pub fn issuer(&self) -> &IssuerFormats {
        &self.issuer
    }

    /// Returns the key formats.
    pub fn formats(&self) -> &FormatSet {
        &self.formats
    }

    /// Returns the redactor for keys of these formats, for texts that are stored.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Returns the clock that supplies all times.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }
}

/// Error returned if a key cannot be issued, rotated or changed.
#[derive(Debug, thiserror::Error)]
pub enum RespondError {
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
    /// The configuration names a format that is not loaded.
    #[error("the key format `{0}` that [issuer] names is not loaded: add it to the pattern files")]
    NoFormat(String),
    /// The format cannot mint keys, or the operating system provided no randomness.
    #[error(transparent)]
    Mint(#[from] MintError),
}

impl MaybeConflict for RespondError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}
