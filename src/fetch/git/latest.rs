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
    /// Fetches what the last commits brought, in place of `pack`, which has nothing. A server that sends commits without
    /// what is in them is asked for those first, and then for what they added to the commits before them. Any other
    /// sends all that is in the oldest one. What is not read of so many commits counts as cut: all of it if the server
    /// says that it sends no part of a history.
    pub(super) async fn latest(&mut self, mut pack: Pack) -> Result<Pack, FetchError> {
        let RangeRequest { after, .. } = *self.request;
        let features = self.peer.features(&mut self.patience).await?;
        if features.is_some_and(|features| !features.shallow) {
            pack.shallow.cut();
            return Ok(pack);
        }
        let filters = features.is_some_and(|features| features.filter);
        let asked = protocol::fetch_latest(&after, LATEST, filters);
        let mut last = self.answer(asked).await?.pack()?;
        last.shallow.asked(after, LATEST);
        if !filters {
            return Ok(last);
        }
        let (before, is_cut) = self.before(last).await?;
        let mut pack = self.insist(&after, &before).await?;
        if is_cut {
            pack.shallow.cut();
        }
        Ok(pack)
    }

    /// Returns the commits before those of a pack, or if they are too many, those before the last one, and whether that
    /// leaves out some of the last commits.
    async fn before(&self, pack: Pack) -> Result<(Vec<ObjectId>, bool), FetchError> {
        let (limits, seat) = (Arc::clone(&self.limits), self.seat.clone());
        let RangeRequest { after, .. } = *self.request;
        compute(move || {
            let history = texts::history(&pack, &limits, &seat)?;
            let before = history.before();
            let is_much = before.len() > HAVES_MAX || history.is_incomplete();
            Ok(if is_much {
                (history.parents(&after), true)
            } else {
                (before, history.is_cut_by(&pack.shallow))
            })
        })
        .await
    }
}
