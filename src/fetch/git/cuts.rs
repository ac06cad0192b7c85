//! Commits at which a server's own history is cut.
//!
//! A server of version 2 tells of them with each pack, one of version 0 or 1 only in its list of references. That may be
//! long, so it is asked for where a pack shows that something is missing.

use std::sync::Arc;

use gix_hash::ObjectId;

use super::super::long_list::LongList;
use super::super::pack::Pack;
use super::super::protocol::{CutAnswer, List, Version};
use super::super::{FetchError, texts};
use super::lists::MAX_REFERENCES;
use super::{Session, compute};

impl Session<'_> {
    /// Notes where the server's own history is cut, if a pack that has what is new since `haves` may depend on it.
    pub(super) async fn with_cuts(
        &mut self,
        pack: Pack,
        haves: &[ObjectId],
    ) -> Result<Pack, FetchError> {
        if self.peer.version() == Version::Two {
            return Ok(pack);
        }
        let (limits, seat) = (Arc::clone(&self.limits), self.seat.clone());
        let haves = haves.to_vec();
        let examined = compute(move || {
            let lacks = texts::lacks_parents(&pack, &haves, &limits, &seat)?;
            Ok((pack, lacks))
        });
        let (mut pack, lacks) = examined.await?;
        if lacks {
            let mut answer = CutAnswer::default();
            let listing = self.peer.list(
                List::All,
                MAX_REFERENCES,
                &mut self.patience,
                LongList::default(),
                |chunk| answer.feed(chunk).map(|()| Some(0)),
            );
            match listing.await {
                // One that is too long does not end.
                Ok(_) | Err(FetchError::Protocol(_)) => pack.shallow.join(answer.finish()),
                Err(error) => return Err(error),
            }
        }
        Ok(pack)
    }
}
