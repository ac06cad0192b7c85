//! Deliveries that name many keys of ours.
//!
//! To write these down takes a turn, which may be long in coming. What was pushed does not wait for it.

use std::sync::Arc;

use super::inbox::Taken;
use super::{Webhook, WebhookError};
use crate::forge::{Gathered, ToldItem};
use crate::respond::{CleanSightings, LITTLE, MANY_FOUND};

/// Work items of a delivery that were committed before the keys that it names.
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
        let sightings = candidates.take_ours(store).await.map_err(Arc::new)?;
        self.commit_early(&mut gathered.items, &sightings, early)
            .await?;
        self.report(sightings).await
    }

    /// Commits the work items of a delivery whose sightings wait for a turn, if there are any. The delivery is not
    /// recorded, so that it can be repeated until all of it is committed.
    pub(super) async fn commit_early(
        &self,
        items: &mut Vec<ToldItem>,
        sightings: &CleanSightings,
        early: &mut Early,
    ) -> Result<(), WebhookError> {
        if sightings.len() <= LITTLE || items.is_empty() {
            return Ok(());
        }
        let items = std::mem::take(items);
        let taken = self.take(None, items, CleanSightings::default()).await?;
        *early = Early {
            is_any: true,
            is_full: taken == Taken::Full,
        };
        Ok(())
    }
}
