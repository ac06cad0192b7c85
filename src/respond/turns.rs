//! Turns of messages with many sightings of keys of ours, or many work items.
//!
//! Whoever owns many keys can name them anywhere, any number of times, and push any number of branches at once. Few such
//! messages are written down at a time, and few wait: each of them holds room for what was made of it, which others need.
//! Those of one owner of repositories wait for one another, and first of all those of one repository.

use std::sync::Arc;
use std::time::Duration;

use super::Responder;
use super::clean::CleanSightings;
use crate::fair::{Claim, FairPlace, FairPlaces, NoPlace};
use crate::store::{Store, StoreError, Urgency};

/// Number of sightings of keys of ours, or of work items, up to which a message is little: it takes some milliseconds to
/// write them down.
pub const LITTLE: usize = 64;

/// Maximum number of messages with many sightings that are written down at a time.
const AT_ONCE: usize = 2;

/// Maximum number of further ones that wait for that. All of them together hold three quarters of the room for what is
/// made of bodies up to 64 KiB at most.
const WAITING_MAX: usize = 16;

/// Maximum time that one waits for others before it begins.
const PATIENCE: Duration = Duration::from_secs(25);

/// Turn of one message, from its first piece with many sightings on, until it is dropped.
#[derive(Debug, Default)]
pub struct Turn(Option<FairPlace>);

/// Creates the places of messages with many sightings.
pub(super) fn places() -> Arc<FairPlaces> {
    FairPlaces::new(AT_ONCE, WAITING_MAX)
}

/// Returns the owner of a repository with this name, of nested groups the outermost. Empty if there is none.
pub fn owner_of(repository: &str) -> &str {
    repository.split_once('/').map_or("", |(owner, _)| owner)
}

impl Responder {
    /// Waits until it is the turn of a message, or of its next piece, to have these sightings written down, and returns
    /// the store for that. A message with few of them waits for none with many.
    ///
    /// # Errors
    /// Returns [`StoreError::PutOff`] if the turn does not come in time, or if too many wait.
    pub async fn store_in_turn(
        &self,
        turn: &mut Turn,
        actor: &str,
        sightings: &CleanSightings,
    ) -> Result<Store, StoreError> {
        if sightings.len() <= LITTLE {
            return Ok(self.store.clone());
        }
        let repository = sightings.repository().unwrap_or_default();
        self.store_of_much(turn, actor, repository).await
    }

    /// Waits until it is the turn of a message, or of its next piece, to have much written down, and returns the
    /// store for that.
    ///
    /// # Errors
    /// Returns [`StoreError::PutOff`] if the turn does not come in time, or if too many wait.
    pub async fn store_of_much(
        &self,
        turn: &mut Turn,
        actor: &str,
        repository: &str,
    ) -> Result<Store, StoreError> {
        let granted = if let Some(place) = &turn.0 {
            place.share().await
        } else {
            let claim = Claim::new(actor, owner_of(repository), repository);
            let place = self.many.place(claim, PATIENCE).await;
            place.map(|place| turn.0 = Some(place))
        };
        granted.map_err(|NoPlace| StoreError::PutOff {
            database: self.store.name().to_owned(),
        })?;
        Ok(self.store.with_urgency_at_most(Urgency::Bulk))
    }
}
