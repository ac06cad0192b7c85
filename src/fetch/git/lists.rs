//! Lists the branches and tags of a repository.

use std::time::Duration;

use reqwest::Url;

use crate::fetch::FetchError;
use crate::fetch::fetcher::GitFetcher;
use crate::fetch::long_list::LongList;
use crate::fetch::patience::Patience;
use crate::fetch::peer::Peer;
use crate::fetch::place::FetchPlace;
use crate::fetch::protocol::{List, References, ReferencesAnswer};
use crate::fetch::token::Token;

/// Maximum size of a list of references that is read, in bytes.
pub(super) const MAX_REFERENCES: usize = 16 << 20;

/// Number of times that a list gives way to others before its reading ends, to begin anew another time.
const WAYS_GIVEN: u32 = 8;

impl GitFetcher {
    /// Lists the branches and tags of a repository, at most 50,000 of them with 4 MiB of names.
    ///
    /// # Errors
    /// Returns a [`FetchError`].
    pub async fn references(
        &self,
        clone_url: &Url,
        token: Option<&Token>,
    ) -> Result<References, FetchError> {
        let (references, _) = self
            .references_from(clone_url, token, FetchPlace::default())
            .await?;
        Ok(references)
    }

    /// Lists branches and tags like [`GitFetcher::references`]. If the list is long and another long one is there, it
    /// is dropped, and requested again when its turn has come: however many wait, they hold nothing. The same happens
    /// if it comes too slowly for others to wait. It comes with the only place for a long list, which is to be dropped
    /// with it.
    ///
    /// # Errors
    /// Returns a [`FetchError`]: [`FetchError::Outpaced`] if it was too slow for others many times.
    pub async fn references_in_turn(
        &self,
        clone_url: &Url,
        token: Option<&Token>,
    ) -> Result<(References, LongList), FetchError> {
        let (mut gave_way, mut long) = (0, LongList::hasty());
        loop {
            let listed = self.listed(clone_url, token, FetchPlace::default(), long);
            match listed.await {
                Err(FetchError::Busy) => {}
                Err(FetchError::Outpaced { .. }) if gave_way < WAYS_GIVEN => gave_way += 1,
                ended => return ended,
            }
            long = LongList::after(gave_way);
            long.take(&self.budget.long_lists, Duration::MAX).await?;
        }
    }

    /// Lists branches and tags like [`GitFetcher::references`], in a given place. A long list comes with the only
    /// place for one, which is to be dropped with it.
    ///
    /// # Errors
    /// Returns a [`FetchError`].
    pub async fn references_from(
        &self,
        clone_url: &Url,
        token: Option<&Token>,
        place: FetchPlace,
    ) -> Result<(References, LongList), FetchError> {
        let long = LongList::after(place.outpaced);
        self.listed(clone_url, token, place, long).await
    }

    async fn listed(
        &self,
        clone_url: &Url,
        token: Option<&Token>,
        place: FetchPlace,
        long: LongList,
    ) -> Result<(References, LongList), FetchError> {
        let mut seat = self.seat(place);
        seat.turns = self.budget.turns(seat.place.lane, &seat.place.payer);
        let mut patience = Patience::new(seat);
        let mut peer = Peer::new(self, clone_url, token);
        let again = long.anew();
        let first = list_all(&peer, &mut patience, long).await;
        let listed = match first {
            Err(error) if peer.speaks_otherwise(&error, &mut patience).await? => {
                list_all(&peer, &mut patience, again).await
            }
            listed => listed,
        };
        let listed = listed.map_err(|error| error.without(token))?;
        peer.understood();
        Ok(listed)
    }
}

async fn list_all(
    peer: &Peer<'_>,
    patience: &mut Patience,
    long: LongList,
) -> Result<(References, LongList), FetchError> {
    let mut answer = ReferencesAnswer::new(peer.version());
    let listing = peer.list(List::All, MAX_REFERENCES, patience, long, |chunk| {
        answer.feed(chunk)?;
        Ok(Some(answer.held()))
    });
    let long = listing.await?;
    Ok((answer.finish()?, long))
}
