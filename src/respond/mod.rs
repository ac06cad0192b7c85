//! Candidate to key to incident to revocation to log entry, in one transaction.
//!
//! Whatever finds a key's value in public (a scan, a partner's report, a stranger) brings it here as a
//! [`Sighting`]. [`Responder::report`] looks all of a batch up, records where the keys of ours were
//! seen, opens or extends their incidents, revokes the secret ones that are still valid, and appends
//! to the revocation log: all of it, or nothing. Reporting the same again changes no more than the
//! counts of sightings.
//!
//! Keys are issued, rotated, changed and revoked by hand here too, since each of these has to leave
//! its entry in the log.

mod answer;
mod candidates;
mod issue;
mod redact;
mod report;
mod timeline;

use crate::clock::SharedClock;
use crate::keyformat::{FormatSet, MintError};
use crate::scan::Redactor;
use crate::store::{MaybeConflict, Store, StoreError, WhyInvalid};

pub use answer::{Answer, Outcome, announce};
pub use candidates::{Candidates, Line, PlaceIndex, Placed, SharedPlace};
pub use issue::{IssueRequest, Rotation};
pub use redact::{PATH_MAX, REPOSITORY_MAX, URL_MAX, shorten};
pub use report::{CleanSightings, Report, Sighting};
pub use timeline::{IncidentDetail, Moment, What};

/// The policy that this version has: a secret key that leaked is revoked at once.
pub const POLICY_REVOKE: &str = "revoke";

/// The identifiers of the key formats that new keys are minted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerFormats {
    /// For secret keys and access tokens.
    pub secret: String,
    /// For public keys.
    pub public: String,
}

/// Acts on keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Responder {
    store: Store,
    formats: FormatSet,
    redactor: Redactor,
    issuer: IssuerFormats,
    clock: SharedClock,
}

impl Responder {
    /// A responder that keeps its keys in `store`.
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

    /// Where the keys are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The key formats that are known.
    pub fn formats(&self) -> &FormatSet {
        &self.formats
    }

    /// Returns the redactor, which takes keys of these formats out of texts that are kept.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The clock that everything is dated by.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }
}

/// Why a key was not issued, rotated or changed.
#[derive(Debug, thiserror::Error)]
pub enum RespondError {
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no key with this identifier.
    #[error("there is no key with this identifier")]
    NotFound,
    /// Only a valid key can be rotated.
    #[error("the key is {}: issue a new one instead", match .0 {
        WhyInvalid::ManuallyRevoked => "revoked",
        WhyInvalid::Expired => "expired",
    })]
    Invalid(WhyInvalid),
    /// The key was rotated before; its successor is to be rotated instead.
    #[error("the key was replaced by {0} already: rotate that one")]
    Replaced(uuid::Uuid),
    /// The configuration names a format that is not loaded.
    #[error("the key format `{0}` that [issuer] names is not loaded: add it to the pattern files")]
    NoFormat(String),
    /// The format cannot mint, or there was no randomness.
    #[error(transparent)]
    Mint(#[from] MintError),
}

impl MaybeConflict for RespondError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}
