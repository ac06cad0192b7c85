//! Response to leaked keys: from candidate to key, incident, revocation and log entry, in one transaction.
//!
//! The finds of a scan are gathered as [`Candidates`], which become [`Sighting`]s only once they are known to be ours;
//! the reports of a partner or a stranger arrive as sightings. [`Responder::report`] looks up a whole batch, records
//! where the keys were seen, opens or extends their incidents, revokes the secret keys that are still valid, and
//! appends to the revocation log: either all of it or nothing. Reporting the same sighting again only changes the
//! number of sightings.
//!
//! Keys are revoked by hand here, too, and that is logged in the same transaction.

mod answer;
mod candidates;
mod clean;
mod known;
mod redact;
mod report;
mod revoke;
mod sighting;
mod timeline;
mod turns;

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::fair::FairPlaces;
use crate::keyformat::FormatSet;
use crate::scan::Redactor;
use crate::store::{Store, Urgency};

pub use answer::{Answer, Outcome, Reported, SeenKey};
pub use candidates::{Candidates, Line, MANY_FOUND, PlaceIndex, Placed, SharedPlace};
#[cfg(test)]
pub(crate) use clean::Cleaner;
pub use clean::{CleanSighting, CleanSightings};
pub use known::{Known, PlacesPerValue};
pub use redact::{PATH_MAX, REPOSITORY_MAX, URL_MAX, shorten};
pub use report::{Report, divided};
pub(crate) use revoke::{by_hand, tell_revoked};
pub use sighting::Sighting;
pub use timeline::{IncidentDetail, Moment, What};
pub use turns::{LITTLE, Turn, owner_of};

/// The policy of this version: a leaked secret key is revoked at once.
pub const POLICY_REVOKE: &str = "revoke";

/// Response to leaks, and revocation by hand. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Responder {
    store: Store,
    formats: FormatSet,
    redactor: Redactor,
    clock: SharedClock,
    /// Places of messages with many sightings.
    many: Arc<FairPlaces>,
}

impl Responder {
    /// Creates a responder for the keys in `store`.
    pub fn new(store: Store, formats: FormatSet, clock: SharedClock) -> Self {
        Self {
            store,
            redactor: Redactor::new(&formats),
            formats,
            clock,
            many: turns::places(),
        }
    }

    /// Returns a responder for the same keys that goes by other formats. Messages with many sightings wait for one
    /// another, whichever of the two they are for.
    #[must_use]
    pub fn with_formats(&self, formats: FormatSet) -> Self {
        Self {
            redactor: Redactor::new(&formats),
            formats,
            ..self.clone()
        }
    }

    /// Returns the same responder for operations on the database that are at most so urgent.
    #[must_use]
    pub fn at_most(&self, urgency: Urgency) -> Self {
        Self {
            store: self.store.with_urgency_at_most(urgency),
            ..self.clone()
        }
    }

    /// Returns the key store.
    pub fn store(&self) -> &Store {
        &self.store
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
