//! The size of a push that is too large for its place, as far as it can be learned there.
//!
//! No server says how large a pack is. A push that has to wait for a medium place is therefore received further,
//! without being kept, for as long as its ordinary place allows: there are many of these. If it turns out to be too
//! large for that, it goes to the large lane at once, and those that are smaller do not wait for it. If it ends before
//! that, it is known to fit, and does not wait for those of its owner of which that is not known.

use std::time::Duration;

use reqwest::Response;

use super::FetchError;
use super::budget::Seat;
use super::lane::{FetchLane, MEDIUM_PACK};
use super::pace::Pace;
use super::patience::Patience;
use super::protocol::FetchAnswer;

/// Maximum time for which a push has been waited for when its size is given up, whoever waits for the place.
const LONGEST: Duration = Duration::from_secs(3);

/// A pack that is received without being kept.
pub(super) struct Sizing {
    pub(super) response: Response,
    pub(super) answer: FetchAnswer,
    /// Part of it that came last.
    pub(super) pack: Vec<u8>,
    pub(super) pace: Pace,
    /// Number of bytes of the push that came so far.
    pub(super) held: usize,
}

impl Sizing {
    /// Returns the reason for which the push goes on in another lane, which says in which one, given the reason for
    /// which it has to. However the rest of it fails, that reason remains.
    pub(super) async fn next_lane(
        mut self,
        busy: FetchError,
        seat: &Seat,
        patience: &mut Patience,
    ) -> FetchError {
        let is_unsized = matches!(busy, FetchError::Busy);
        if seat.place.lane != FetchLane::Ordinary || !is_unsized {
            return busy;
        }
        while self.held <= MEDIUM_PACK {
            if patience.waited() > LONGEST {
                return busy;
            }
            match self.receive(patience).await {
                Ok(true) => {}
                Ok(false) if self.answer.finish().is_ok() => return FetchError::SizedBusy,
                Ok(false) | Err(_) => return busy,
            }
        }
        FetchError::LargeBusy
    }

    /// Receives more of it. Returns `false` at its end.
    async fn receive(&mut self, patience: &mut Patience) -> Result<bool, FetchError> {
        self.pack.clear();
        let part = self.pace.part(&mut self.response);
        let Some(chunk) = patience.wait(part).await?? else {
            return Ok(false);
        };
        self.answer.feed(&chunk, &mut self.pack)?;
        self.pace.count(self.pack.len())?;
        patience.received(self.pack.len())?;
        self.held += self.pack.len();
        Ok(true)
    }
}
