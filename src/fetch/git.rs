//! Requests the contents of a push from a git server.

mod cuts;
mod latest;
mod lists;
mod tip;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use gix_hash::ObjectId;
use reqwest::Url;

use super::budget::{Admission, Seat};
use super::fetcher::GitFetcher;
use super::lane::SMALL_PACK;
use super::long_list::LongList;
use super::pace::Pace;
use super::pack::{Pack, PackError};
use super::pack_rest::PackRest;
use super::patience::Patience;
use super::peer::Peer;
use super::place::FetchPlace;
use super::protocol::{self, FetchAnswer, Head, HeadAnswer, List, Request};
use super::size::Sizing;
use super::texts::{self, FetchedPack, PackOrigin};
use super::token::Token;
use super::{FetchError, FetchLimits};

/// Maximum size of a list of which nothing but `HEAD` matters, in bytes.
const MAX_LIST: usize = 64 << 10;

/// A pushed range and the repository to fetch it from.
#[derive(Debug, Clone)]
pub struct RangeRequest {
    /// URL of the repository, `https://host/owner/name.git`; see [`super::RepositoryName::clone_url`].
    pub clone_url: Url,
    /// Access token, sent with the first request already.
    pub token: Option<Token>,
    /// Full name of the reference that was pushed, `refs/heads/…`. Empty if it is not known to the letter.
    pub reference: String,
    /// Target of the reference before the push. All zeros if the reference is new.
    pub before: ObjectId,
    /// Target of the reference after the push. All zeros if the reference was deleted.
    pub after: ObjectId,
    /// Further references that are new, by their targets, of which the same is fetched in the same request. For new
    /// references only.
    pub others: Vec<ObjectId>,
    /// Further commits that count as read with all that they lead to. All zeros for the default branch.
    pub haves: Vec<ObjectId>,
    /// `true` if whoever named the push need not have named those of the default branch: of a new branch that is part
    /// of that already, the last commits are read.
    pub is_sampled: bool,
}

/// Commit up to which the branch of `HEAD` counts as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// Present target of `HEAD`.
    Present,
    /// Another commit. Its server may not know it, in which case nothing counts as read.
    Commit(ObjectId),
}

/// Decides up to which commit the branch of `HEAD` with this full name counts as read when another reference is read,
/// if it does.
pub type CountsAsRead<'c> =
    dyn Fn(String) -> BoxFuture<'c, Result<Option<Has>, FetchError>> + Send + Sync + 'c;

/// Kinds of answers to a request for a pack.
enum Answered {
    /// The server sent a pack, complete or cut off at the byte limit.
    Pack(Box<Pack>),
    /// The server knows one of the commits that were named as `haves`, but did not send a pack yet.
    Acknowledged,
    /// The server knows none of them, and sent no pack.
    Unknown,
}

impl Answered {
    fn pack(self) -> Result<Pack, FetchError> {
        match self {
            Self::Pack(pack) => Ok(*pack),
            _ => Err(FetchError::Protocol("it sent no pack")),
        }
    }
}

/// A fetch in flight.
struct Session<'f> {
    peer: Peer<'f>,
    /// Commit that is asked for: the pushed one, unless the server gives only another one that leads to it.
    want: ObjectId,
    /// `true` if the pushed branch is that of `HEAD`.
    is_default: bool,
    fetcher: &'f GitFetcher,
    limits: Arc<FetchLimits>,
    request: &'f RangeRequest,
    counts: &'f CountsAsRead<'f>,
    seat: Seat,
    admission: Admission,
    /// Accounting of the time spent waiting for the server.
    patience: Patience,
    /// Number of bytes of pack data received so far.
    received: usize,
    /// Remainder of the pack, which the server has yet to send.
    rest: Option<PackRest>,
}

/// Pack of a range.
struct Answer {
    pack: Pack,
    origin: PackOrigin,
}

impl GitFetcher {
    /// Fetches the contents of a push.
    ///
    /// Usually this takes one request. It asks the server for `after` and states `before`, and
    /// [`RangeRequest::haves`], as already present, without insisting on a pack, so that the server answers whether it knows `before`:
    /// - if it does, and the two are related, the pack comes in the same answer;
    /// - if it does, and they are not, a second request insists;
    /// - if it does not, or `before` is all zeros, a commit of the branch of `HEAD` is stated as present if that is
    ///   another branch than the pushed one. Whoever names the pushes names those of that branch, too, unless
    ///   [`RangeRequest::is_sampled`]. Of the branch of `HEAD`, and if `HEAD` is no branch, the whole history is new.
    ///
    /// If `after` does not lead back to `before`, the push dropped commits, which [`Visited::dropped`](super::Visited)
    /// tells. They are what is between `after` and `before`, as long as the server still has them.
    ///
    /// # Errors
    /// Returns a [`FetchError`].
    pub async fn fetch(&self, request: &RangeRequest) -> Result<FetchedPack, FetchError> {
        let limits = Arc::clone(&self.limits);
        let counts = |_| ready(Ok(Some(Has::Present))).boxed();
        self.fetch_within(request, FetchPlace::default(), limits, &counts)
            .await
    }

    /// Fetches the contents of a push like [`GitFetcher::fetch`], in a given place and within given
    /// limits.
    ///
    /// The branch of `HEAD` counts as read only as far as `counts` says so, which is not asked for most pushes.
    ///
    /// The fetcher's own limits still determine how long a server is waited for when no other fetch is
    /// waiting, and how many fetches run concurrently.
    ///
    /// # Errors
    /// Returns a [`FetchError`].
    pub async fn fetch_within<'f>(
        &'f self,
        request: &'f RangeRequest,
        place: FetchPlace,
        limits: Arc<FetchLimits>,
        counts: &'f CountsAsRead<'f>,
    ) -> Result<FetchedPack, FetchError> {
        let mut seat = self.seat(place);
        if request.after.is_null() || request.after == request.before {
            return Ok(FetchedPack::new(None, PackOrigin::Range, limits, seat));
        }
        let admission = self
            .budget
            .admit(seat.place.lane, &seat.place.payer)
            .await?;
        seat.turns.clone_from(admission.turns());
        let mut session = Session {
            peer: Peer::new(self, &request.clone_url, request.token.as_ref())
                .named_by(request.after.kind()),
            want: request.after,
            is_default: false,
            fetcher: self,
            limits,
            request,
            counts,
            admission,
            patience: Patience::new(seat.clone()),
            seat,
            received: 0,
            rest: None,
        };
        session
            .patience
            .holds(session.admission.lane(), &session.seat);
        let token = request.token.as_ref();
        let ranged = session.in_its_dialect().await;
        let Answer { pack, origin } = ranged.map_err(|error| error.without(token))?;
        session.peer.understood();
        let fetched = FetchedPack::new(Some(pack), origin, session.limits, session.seat);
        let fetched = fetched.with_others(!session.is_default);
        Ok(fetched.with_rest(session.admission, session.rest))
    }
}

impl Session<'_> {
    /// Fetches the range, and if the server turns out to speak another dialect, in that one.
    async fn in_its_dialect(&mut self) -> Result<Answer, FetchError> {
        match self.range_or_later().await {
            Err(error)
                if self
                    .peer
                    .speaks_otherwise(&error, &mut self.patience)
                    .await? =>
            {
                let kind = self.want.kind();
                if !self.peer.has_names_of(kind) {
                    let digits = kind.len_in_hex();
                    return Err(FetchError::OtherHash { digits });
                }
                self.range_or_later().await
            }
            ended => ended,
        }
    }

    async fn range(&mut self) -> Result<Answer, FetchError> {
        let RangeRequest { before, .. } = *self.request;
        let after = self.want;
        // A name by another hash function names nothing here.
        if before.is_null() || before.kind() != after.kind() {
            return self.without_before().await;
        }
        let mut haves = vec![before];
        haves.extend(self.request.haves.iter().filter(|have| !have.is_null()));
        if self.request.haves.iter().any(ObjectId::is_null) {
            haves.extend(self.of_head().await?);
        }
        let pack = match self.ask(&after, &haves, false).await? {
            Answered::Pack(pack) => *pack,
            Answered::Acknowledged => self.insist(&after, &haves).await?,
            Answered::Unknown => return self.without_before().await,
        };
        let pack = self.with_cuts(pack, &haves).await?;
        let (pack, connected) = self.parse_range(pack).await?;
        let origin = if connected {
            PackOrigin::Range
        } else {
            PackOrigin::Forced
        };
        Ok(Answer { pack, origin })
    }

    /// Fetches the range of a new reference, or of one whose former commit is unknown.
    async fn without_before(&mut self) -> Result<Answer, FetchError> {
        let after = self.want;
        let head = self.of_head().await?;
        let mut haves: Vec<ObjectId> = head.into_iter().collect();
        haves.extend(self.request.haves.iter().filter(|have| !have.is_null()));
        let pack = self.insist(&after, &haves).await?;
        let mut pack = self.with_cuts(pack, &haves).await?;
        let is_branch = self.request.reference.starts_with("refs/heads/");
        let is_merged = head.is_some() && pack.stated_count() == Some(0);
        if self.request.is_sampled && is_branch && is_merged {
            pack = self.latest(pack).await?;
        }
        Ok(Answer {
            pack,
            origin: PackOrigin::New,
        })
    }

    /// Returns the commit of the branch of `HEAD` that counts as read, if that is another branch than the pushed one.
    async fn of_head(&mut self) -> Result<Option<ObjectId>, FetchError> {
        let Some(head) = self.head().await? else {
            return Ok(None);
        };
        let other = head.of_another(&self.request.reference);
        self.is_default = head.branch.as_ref() == Some(&self.request.reference);
        let (Some(present), Some(branch)) = (other, head.branch) else {
            return Ok(None);
        };
        let has = (self.counts)(branch).await?;
        Ok(has.map(|has| match has {
            Has::Present => present,
            Has::Commit(id) => id,
        }))
    }

    async fn insist(&mut self, want: &ObjectId, haves: &[ObjectId]) -> Result<Pack, FetchError> {
        self.ask(want, haves, true).await?.pack()
    }

    async fn ask(
        &mut self,
        want: &ObjectId,
        haves: &[ObjectId],
        done: bool,
    ) -> Result<Answered, FetchError> {
        let mut wants = vec![*want];
        if !self.is_default {
            wants.extend(&self.request.others);
            // Not every server takes one twice.
            wants.sort_unstable();
            wants.dedup();
        }
        let is_name = |have: &&ObjectId| have.kind() == want.kind();
        let haves: Vec<ObjectId> = haves.iter().filter(is_name).copied().collect();
        self.answer(protocol::fetch(&wants, &haves, done)).await
    }

    /// Sends a request for a pack, and receives the answer.
    async fn answer(&mut self, request: Request) -> Result<Answered, FetchError> {
        let asked = self.peer.post(&request);
        let mut response = self.patience.wait(asked).await??;
        let (waited, lane) = (self.patience.waited(), self.seat.place.lane);
        let mut body = Pace::new(self.fetcher.limits.pace_of_pack(waited, lane));
        let mut answer = FetchAnswer::new(self.peer.version());
        let mut pack = Vec::new();
        self.rest = None;
        let FetchLimits {
            max_fetch_bytes,
            max_held_bytes,
            ..
        } = *self.limits;
        let room = usize::try_from(max_fetch_bytes).unwrap_or(usize::MAX);
        let room = room.min(max_held_bytes).saturating_sub(self.received);
        let mut is_nothing = true;
        while let Some(chunk) = self.patience.wait(body.part(&mut response)).await?? {
            is_nothing = false;
            let before = pack.len();
            answer.feed(&chunk, &mut pack)?;
            // Anything outside the pack, such as empty lines while the server prepares it, is a
            // keep-alive.
            body.count(pack.len() - before)?;
            self.patience.received(pack.len() - before)?;
            if pack.len() > room {
                let came = pack.split_off(room);
                self.received += room;
                let room = max_fetch_bytes.saturating_sub(self.received as u64);
                let next = Patience::new(self.seat.clone());
                let shallow = std::mem::take(&mut answer.shallow);
                self.rest = (room > 0).then_some(PackRest {
                    response,
                    answer,
                    came,
                    room,
                    pace: body,
                    patience: std::mem::replace(&mut self.patience, next),
                    token: self.request.token.clone(),
                    has_ended: false,
                });
                let pack = self.pack(pack, false).cut_at(shallow);
                return Ok(Answered::Pack(Box::new(pack)));
            }
            let held = self.received + pack.len();
            let payer = &self.seat.place.payer;
            let covered = self.admission.cover(&self.fetcher.budget, held, payer);
            if let Err(busy) = covered {
                let sizing = Sizing {
                    response,
                    answer,
                    pack,
                    pace: body,
                    held,
                };
                return Err(sizing.next_lane(busy, &self.seat, &mut self.patience).await);
            }
            if self.patience.lane() != Some(self.admission.lane()) {
                self.seat.turns.clone_from(self.admission.turns());
                self.patience.holds(self.admission.lane(), &self.seat);
            }
            if pack.len() > SMALL_PACK {
                // All at once: growing in steps would hold the pack twice at each step.
                pack.reserve_exact(room.saturating_sub(pack.len()) + chunk.len());
            }
        }
        if is_nothing {
            return Err(FetchError::Empty);
        }
        answer.finish()?;
        self.received += pack.len();
        match answer {
            FetchAnswer {
                has_pack: true,
                shallow,
                ..
            } => {
                let pack = self.pack(pack, true).cut_at(shallow);
                Ok(Answered::Pack(Box::new(pack)))
            }
            FetchAnswer {
                acknowledged: true, ..
            } => Ok(Answered::Acknowledged),
            _ => Ok(Answered::Unknown),
        }
    }

    async fn head(&mut self) -> Result<Option<Head>, FetchError> {
        let mut answer = HeadAnswer::new(self.peer.version());
        self.peer
            .list(
                List::Head,
                MAX_LIST,
                &mut self.patience,
                LongList::default(),
                |chunk| {
                    answer.feed(chunk)?;
                    Ok((!answer.has_ended()).then_some(0))
                },
            )
            .await?;
        answer.finish()
    }

    fn pack(&self, bytes: Vec<u8>, whole: bool) -> Pack {
        Pack::new(self.want.kind(), bytes, whole)
    }

    /// Parses the pack of the range and checks whether `after` leads back to `before`. A pack that is cut
    /// off does not allow an answer and counts as connected.
    async fn parse_range(&self, mut pack: Pack) -> Result<(Pack, bool), FetchError> {
        let limits = Arc::clone(&self.limits);
        let seat = self.seat.clone();
        let RangeRequest { before, .. } = *self.request;
        let after = self.want;
        compute(move || {
            let connected = texts::connects(&mut pack, after, before, &limits, &seat)?;
            Ok((pack, connected))
        })
        .await
    }
}

/// Runs a computation on a thread that may block.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| FetchError::Corrupt("reading it was given up"))?
}

impl From<PackError> for FetchError {
    fn from(error: PackError) -> Self {
        Self::Corrupt(error.0)
    }
}
