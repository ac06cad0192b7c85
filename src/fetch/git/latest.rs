//! The last commits of a branch that is part of the default branch already.

use std::sync::Arc;

use gix_hash::ObjectId;

use super::super::pack::Pack;
use super::super::{FetchError, protocol, texts};
use super::{RangeRequest, Session, compute};

/// Number of commits in a row, back from the last one, that are read of a branch that may be merged already.
const LATEST: u32 = 8;

/// Maximum number of commits before those that are named. Merges may lead back to any number of them.
const HAVES_MAX: usize = 256;

impl Session<'_> {
    /// Fetches what the last commits brought. A server that sends commits without what is in them is asked for those
    /// first, and then for what they added to the commits before them. Any other sends all that is in the oldest one.
    pub(super) async fn latest(&mut self) -> Result<Pack, FetchError> {
        let RangeRequest { after, .. } = *self.request;
        let filters = self.peer.filters(&mut self.patience).await?;
        let asked = protocol::fetch_latest(&after, LATEST, filters);
        let (bytes, whole) = self.answer(asked).await?.pack()?;
        let pack = self.pack(bytes, whole);
        if !filters {
            return Ok(pack);
        }
        let before = self.before(pack).await?;
        let (bytes, whole) = self.insist(&after, &before).await?;
        Ok(self.pack(bytes, whole))
    }

    /// Returns the commits before those of a pack, or if they are too many, those before the last one.
    async fn before(&self, mut pack: Pack) -> Result<Vec<ObjectId>, FetchError> {
        let (limits, seat) = (Arc::clone(&self.limits), self.seat.clone());
        let RangeRequest { after, .. } = *self.request;
        compute(move || {
            let history = texts::history(&mut pack, &limits, &seat)?;
            let before = history.before();
            let is_much = before.len() > HAVES_MAX || history.is_incomplete();
            Ok(if is_much {
                history.parents(&after)
            } else {
                before
            })
        })
        .await
    }
}
