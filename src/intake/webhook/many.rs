//! Deliveries that name many keys of ours.
//!
//! To write these down takes a turn, which may be long in coming. What was pushed does not wait for it, nor does the
//! revocation of what leaked: the first place of each such key.

use std::sync::Arc;

use super::inbox::Taken;
use super::{Webhook, WebhookError};
use crate::forge::{Gathered, ToldItem};
use crate::respond::{CleanSightings, LITTLE, MANY_FOUND};

/// Maximum number of keys that are revoked before it is the turn of their delivery. Together with a few work items they
/// are little.
const FIRST_MAX: usize = 48;

/// Parts of a delivery that were committed before its turn.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// `true` if there were any.
    pub(super) is_any: bool,
    /// `true` if there was no room for all of them.
    pub(super) is_full: bool,
}

impl Webhook {
    /// Looks up the candidates of a delivery in the middle of its texts, so that there is room for more. If many are
    /// ours, they are reported, after its work items were committed.
    pub(super) async fn make_room(
        &self,
        gathered: &mut Gathered,
        early: &mut Early,
    ) -> Result<(), WebhookError> {
        let (store, candidates) = (self.responder.store(), &mut gathered.candidates);
        let ours = candidates.retain_ours(store).await.map_err(Arc::new)?;
        if ours < MANY_FOUND && !candidates.is_full() {
            return Ok(());
        }
        let mut sightings = candidates.take_ours(store).await.map_err(Arc::new)?;
        self.commit_early(&mut gathered.items, &mut sightings, early)
            .await?;
        self.report(sightings).await
    }

    /// Commits the work items of a delivery whose sightings wait for a turn, and the first sightings of keys that are to
    /// be revoked, if there are any. The delivery is not recorded, so that it can be repeated until all of it is
    /// committed.
    pub(super) async fn commit_early(
        &self,
        items: &mut Vec<ToldItem>,
        sightings: &mut CleanSightings,
        early: &mut Early,
    ) -> Result<(), WebhookError> {
        if sightings.len() <= LITTLE {
            return Ok(());
        }
        let (items, first) = (std::mem::take(items), sightings.take_first(FIRST_MAX));
        if items.is_empty() && first.is_empty() {
            return Ok(());
        }
        let taken = self.take(None, items, first).await?;
        early.is_any = true;
        early.is_full |= taken == Taken::Full;
        Ok(())
    }
}
