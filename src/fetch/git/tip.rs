//! Commits that a server of version 0 does not give, though a reference leads to them.

use std::sync::Arc;

use gix_hash::ObjectId;

use super::super::long_list::LongList;
use super::super::pack::Pack;
use super::super::protocol::{List, TipAnswer};
use super::super::{FetchError, texts};
use super::lists::MAX_REFERENCES;
use super::{Answer, Session, compute};

impl Session<'_> {
    /// Fetches the range. If the server gives nothing but what it lists, and the reference has moved on since it was
    /// pushed, fetches everything up to where it is now.
    pub(super) async fn range_or_later(&mut self) -> Result<Answer, FetchError> {
        let error = match self.range().await {
            Err(error @ (FetchError::CommitGone | FetchError::Refused(_))) => error,
            ended => return ended,
        };
        if !self.peer.gives_listed_only() || self.request.reference.is_empty() {
            return Err(error);
        }
        let Some(tip) = self.tip().await?.filter(|tip| *tip != self.want) else {
            return Err(error);
        };
        let pushed = std::mem::replace(&mut self.want, tip);
        let Answer { pack, origin } = self.range().await?;
        let pack = self.with(pack, pushed).await?;
        Ok(Answer { pack, origin })
    }

    /// Returns the present target of the pushed reference.
    async fn tip(&mut self) -> Result<Option<ObjectId>, FetchError> {
        let mut answer = TipAnswer::new(self.peer.version(), &self.request.reference);
        let patience = &mut self.patience;
        let listing = self.peer.list(
            List::All,
            MAX_REFERENCES,
            patience,
            LongList::default(),
            |chunk| {
                answer.feed(chunk)?;
                Ok((!answer.has_ended()).then_some(0))
            },
        );
        listing.await?;
        Ok(answer.tip())
    }

    /// Checks that a pack has the pushed commit, to which the reference may not lead any more. A pack that is cut off
    /// does not allow an answer.
    async fn with(&self, mut pack: Pack, pushed: ObjectId) -> Result<Pack, FetchError> {
        let (limits, seat) = (Arc::clone(&self.limits), self.seat.clone());
        compute(move || {
            // Reading it takes memory, as what is kept of it does.
            drop(pack.take_known());
            let is_cut = !pack.is_whole();
            if is_cut || texts::history(&pack, &limits, &seat)?.may_have(&pushed) {
                Ok(pack)
            } else {
                Err(FetchError::CommitGone)
            }
        })
        .await
    }
}
