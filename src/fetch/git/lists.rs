//! Lists the branches and tags of a repository.

use reqwest::Url;

use crate::fetch::FetchError;
use crate::fetch::fetcher::GitFetcher;
use crate::fetch::patience::Patience;
use crate::fetch::peer::{LongList, Peer};
use crate::fetch::place::FetchPlace;
use crate::fetch::protocol::{List, References, ReferencesAnswer};
use crate::fetch::token::Token;

/// Maximum size of a list of references that is read, in bytes.
pub(super) const MAX_REFERENCES: usize = 16 << 20;

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
    /// is dropped, and requested again when its turn has come: however many wait, they hold nothing. It comes with
    /// the only permit for a long list, which is to be dropped with it.
    ///
    /// # Errors
    /// Returns a [`FetchError`].
    pub async fn references_in_turn(
        &self,
        clone_url: &Url,
        token: Option<&Token>,
    ) -> Result<(References, LongList), FetchError> {
        let place = FetchPlace::default();
        let listed = self.listed(clone_url, token, place.clone(), LongList::WITHOUT_WAITING);
        match listed.await {
            Err(FetchError::Busy) => {}
            ended => return ended,
        }
        let turn = LongList::taken(self.budget.long_list().await?);
        self.listed(clone_url, token, place, turn).await
    }

    /// Lists branches and tags like [`GitFetcher::references`], in a given place. A long list comes with the only
    /// permit for one, which is to be dropped with it.
    ///
    /// # Errors
    /// Returns a [`FetchError`].
    pub async fn references_from(
        &self,
        clone_url: &Url,
        token: Option<&Token>,
        place: FetchPlace,
    ) -> Result<(References, LongList), FetchError> {
        self.listed(clone_url, token, place, LongList::default())
            .await
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
        let is_hasty = long.is_hasty();
        let first = list_all(&peer, &mut patience, long).await;
        let listed = match first {
            Err(error) if peer.speaks_otherwise(&error, &mut patience).await? => {
                let long = if is_hasty {
                    LongList::WITHOUT_WAITING
                } else {
                    LongList::default()
                };
                list_all(&peer, &mut patience, long).await
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
