//! Lists and detailed views: few are put together at a time, and what was put together has a room until it is read.
//!
//! Whoever asks for a list decides what it costs, and when its answer is read. Of those that wait, the project that has
//! the fewest put together comes first, in it the access token with the fewest, then whoever has the least unread. A
//! list is begun only while there is room, and while its access token has its share of that; when there is none, the
//! slowest reader that is late gives way. Searches have fewer of the places, since they look through all that there is:
//! however many are asked for, by however many projects, one place is left to plain lists.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::reader::{GRACE, GaveWay, Reader, evict_latest};
use super::turns::NoTurn;
use crate::memory;

/// Room, in bytes, for answers that were not read yet. Those that are put together when it is reached go beyond it.
const ROOM: usize = memory::LISTS;

/// Fraction (one in `SHARE_OF_ONE`) of the room that one access token may have.
const SHARE_OF_ONE: usize = 2;

/// Lists that are put together at a time, and further ones that wait for that.
const AT_ONCE: usize = 2;
const SEARCHES_AT_ONCE: usize = AT_ONCE - 1;
const MOST_WAITING: usize = 64;

/// Longest wait for a place, and the interval at which it is looked for readers that have become late.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Delay of the answer that too many wait, so that asking again at once helps nobody.
const CROWDED_PAUSE: Duration = Duration::from_secs(1);

/// Size of the pieces, in bytes, in which an answer is handed over, and the time limit for reading all of it.
const PIECE: usize = 16 << 10;
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Places for lists, and the room for their answers.
#[derive(Debug)]
pub(in crate::server) struct Listings {
    room: usize,
    grace: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Lists that are being put together.
    begun: HashMap<u64, Ask>,
    /// Answers that were not read yet.
    readers: Vec<Arc<Reader>>,
    /// Waiting requests in the order of their arrival.
    waiting: Vec<Waiting>,
}

/// Project and token that a list counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Claim {
    pub(in crate::server) project: String,
    pub(in crate::server) token: Uuid,
}

/// Request for a list.
#[derive(Debug, Clone)]
pub(in crate::server) struct Ask {
    pub(in crate::server) claim: Claim,
    /// `true` if a text is looked for in everything that the list is of.
    pub(in crate::server) is_search: bool,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    ask: Ask,
    go: oneshot::Sender<()>,
}

/// Place in which a list is put together, or position in the queue for one. Released on drop.
#[derive(Debug)]
pub(in crate::server) struct ListingPlace {
    listings: Arc<Listings>,
    id: u64,
    token: Uuid,
}

/// Answer that is being read. Its room is released on drop.
struct Answer {
    listings: Arc<Listings>,
    reader: Arc<Reader>,
    ends: Instant,
}

impl Listings {
    pub(in crate::server) fn new() -> Arc<Self> {
        Self::with(ROOM, GRACE)
    }

    fn with(room: usize, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            room,
            grace,
            state: Mutex::default(),
        })
    }

    /// Waits for a place, and for room for the answer.
    ///
    /// # Errors
    /// Returns [`NoTurn`] if there is none in time, or if too many are waiting.
    pub(in crate::server) async fn place(
        self: &Arc<Self>,
        ask: Ask,
    ) -> Result<ListingPlace, NoTurn> {
        let until = Instant::now() + PATIENCE;
        let (place, mut granted) = self.wait(ask);
        loop {
            match tokio::time::timeout(PAUSE, &mut granted).await {
                Ok(Ok(())) => return Ok(place),
                Ok(Err(_)) => {
                    tokio::time::sleep(CROWDED_PAUSE).await;
                    return Err(NoTurn);
                }
                Err(_) if Instant::now() >= until => return Err(NoTurn),
                Err(_) => self.lock().grant(self),
            }
        }
    }

    fn wait(self: &Arc<Self>, ask: Ask) -> (ListingPlace, oneshot::Receiver<()>) {
        let (go, granted) = oneshot::channel();
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let token = ask.claim.token;
        state.waiting.push(Waiting { id, ask, go });
        state.grant(self);
        if state.waiting.len() > MOST_WAITING {
            state.thin_out();
        }
        let listings = Arc::clone(self);
        let place = ListingPlace {
            listings,
            id,
            token,
        };
        (place, granted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Grants the places that are free to those that wait and have room.
    fn grant(&mut self, listings: &Listings) {
        while self.begun.len() < AT_ONCE && !self.waiting.is_empty() {
            let held = self.held();
            let searches = self.begun.values().filter(|begun| begun.is_search).count();
            let mut order: Vec<_> = (0..self.waiting.len()).collect();
            order.sort_by_cached_key(|at| self.rank(&self.waiting[*at], &held));
            let Self {
                readers, waiting, ..
            } = self;
            let first = order.into_iter().find(|at| {
                let ask = &waiting[*at].ask;
                (!ask.is_search || searches < SEARCHES_AT_ONCE)
                    && has_room(readers, listings, ask.claim.token)
            });
            let Some(first) = first else {
                return;
            };
            let next = self.waiting.remove(first);
            self.begun.insert(next.id, next.ask);
            // If nobody listens anymore, the place is about to be dropped.
            let _ = next.go.send(());
        }
    }

    /// Returns the number of unread bytes of each access token.
    fn held(&self) -> HashMap<Uuid, usize> {
        let mut held = HashMap::new();
        for reader in &self.readers {
            *held.entry(reader.token).or_default() += reader.held();
        }
        held
    }

    /// Returns the position of whoever waits among the others.
    fn rank(&self, waiting: &Waiting, held: &HashMap<Uuid, usize>) -> (usize, usize, usize, u64) {
        let claim = &waiting.ask.claim;
        let of_project = self.begun.values();
        let of_project = of_project.filter(|begun| begun.claim.project == claim.project);
        let of_token = of_project.clone().filter(|begun| begun.claim == *claim);
        let held = held.get(&claim.token).copied().unwrap_or_default();
        (of_project.count(), of_token.count(), held, waiting.id)
    }

    /// Refuses a random waiter of the project, and of the access token in it, of which the most wait.
    fn thin_out(&mut self) {
        let counts = |claim: &Claim| {
            let of_project = self.waiting.iter();
            let of_project = of_project.filter(|other| other.ask.claim.project == claim.project);
            let of_token = of_project.clone().filter(|other| other.ask.claim == *claim);
            (of_project.count(), of_token.count())
        };
        let last = (0..self.waiting.len())
            .max_by_key(|at| (counts(&self.waiting[*at].ask.claim), rand::random::<u32>()));
        if let Some(last) = last {
            self.waiting.remove(last);
        }
    }
}

/// Returns whether there is room for one more answer of this access token. Readers that are late give way for it: those
/// of the same access token if that has its share, else any.
fn has_room(readers: &mut Vec<Arc<Reader>>, listings: &Listings, token: Uuid) -> bool {
    loop {
        let own = readers.iter().filter(|reader| reader.token == token);
        let own: usize = own.map(|reader| reader.held()).sum();
        let all: usize = readers.iter().map(|reader| reader.held()).sum();
        let has_share = own < listings.room / SHARE_OF_ONE;
        if has_share && all < listings.room {
            return true;
        }
        let may_go = |reader: &Reader| has_share || reader.token == token;
        if !evict_latest(readers, listings.grace, may_go) {
            return false;
        }
    }
}

impl ListingPlace {
    /// Returns an answer that keeps its room until it is written. The place is free for another list.
    pub(in crate::server) fn answer(self, mut json: Vec<u8>) -> Response {
        json.shrink_to_fit();
        let length = json.len();
        let reader = Arc::new(Reader::new(self.token, PIECE));
        reader.add(json);
        reader.begin();
        self.listings.lock().readers.push(Arc::clone(&reader));
        let answer = Answer {
            listings: Arc::clone(&self.listings),
            reader,
            ends: Instant::now() + ANSWER_TIME,
        };
        drop(self);
        let pieces = stream::try_unfold(answer, async |answer| {
            let piece = answer.next()?;
            Ok::<_, GaveWay>(piece.map(|piece| (piece, answer)))
        });
        let headers = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
        ];
        (headers, Body::from_stream(pieces)).into_response()
    }
}

impl Drop for ListingPlace {
    fn drop(&mut self) {
        let mut state = self.listings.lock();
        state.waiting.retain(|waiting| waiting.id != self.id);
        state.begun.remove(&self.id);
        state.grant(&self.listings);
    }
}

impl Answer {
    fn next(&self) -> Result<Option<Bytes>, GaveWay> {
        if Instant::now() >= self.ends {
            return Err(GaveWay);
        }
        self.reader.next()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.listings.lock();
        state
            .readers
            .retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        state.grant(&self.listings);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(50);

    fn of(project: &str, token: u128) -> Ask {
        let claim = Claim {
            project: project.to_owned(),
            token: Uuid::from_u128(token),
        };
        Ask {
            claim,
            is_search: false,
        }
    }

    /// Returns a place, if one is granted at once.
    fn now(listings: &Arc<Listings>, ask: Ask) -> Option<ListingPlace> {
        let (place, mut granted) = listings.wait(ask);
        granted.try_recv().ok().map(|()| place)
    }

    fn unread(listings: &Arc<Listings>) -> usize {
        let state = listings.lock();
        state.readers.iter().map(|reader| reader.held()).sum()
    }

    #[tokio::test]
    async fn few_lists_are_put_together_at_a_time_and_projects_take_turns() {
        let listings = Listings::with(ROOM, GRACE);
        let held: Vec<_> = (0..AT_ONCE)
            .filter_map(|_| now(&listings, of("a", 1)))
            .collect();
        assert_eq!(held.len(), AT_ONCE);
        let mut crowd: Vec<_> = (0..100).map(|_| listings.wait(of("a", 1))).collect();
        assert_eq!(listings.lock().waiting.len(), MOST_WAITING);
        let (other, mut granted) = listings.wait(of("b", 2));
        assert!(granted.try_recv().is_err());
        drop(held);
        assert!(granted.try_recv().is_ok());
        drop(other);
        let begun = crowd
            .iter_mut()
            .filter_map(|(_, granted)| granted.try_recv().ok());
        assert_eq!(begun.count(), AT_ONCE);
        drop(crowd);
        assert!(listings.lock().begun.is_empty() && listings.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn searches_leave_a_place_to_plain_lists() {
        let search = |project: &str, token| Ask {
            is_search: true,
            ..of(project, token)
        };
        let listings = Listings::with(ROOM, GRACE);
        let begun = now(&listings, search("a", 1)).unwrap();
        let (next, mut granted) = listings.wait(search("b", 2));
        assert!(granted.try_recv().is_err());
        for _ in 0..3 {
            // Also where the project's own searches have the other place.
            assert!(now(&listings, of("a", 1)).is_some());
        }
        assert!(granted.try_recv().is_err());
        drop(begun);
        assert!(granted.try_recv().is_ok());
        drop(next);
    }

    #[tokio::test]
    async fn an_answer_keeps_its_room_until_it_is_read() {
        let listings = Listings::with(8 * PIECE, GRACE);
        let answer = now(&listings, of("a", 1)).unwrap();
        let answer = answer.answer(vec![b'x'; 4 * PIECE]);
        assert_eq!(unread(&listings), 4 * PIECE);
        assert!(now(&listings, of("a", 1)).is_none(), "it has its share");
        assert!(now(&listings, of("a", 2)).is_some());
        let mut pieces = answer.into_body().into_data_stream();
        for _ in 0..4 {
            assert_eq!(pieces.next().await.unwrap().unwrap().len(), PIECE);
        }
        // The last piece is being written.
        assert_eq!(unread(&listings), PIECE);
        assert!(pieces.next().await.is_none());
        drop(pieces);
        assert_eq!(unread(&listings), 0);
        assert!(listings.lock().readers.is_empty());
    }

    #[tokio::test]
    async fn a_late_reader_gives_way_to_whoever_waits() {
        let listings = Listings::with(4 * PIECE, MOMENT);
        let [mut first, second] = [1, 2].map(|token| {
            let place = now(&listings, of("a", token)).unwrap();
            let answer = place.answer(vec![b'x'; 2 * PIECE]);
            answer.into_body().into_data_stream()
        });
        assert!(now(&listings, of("b", 3)).is_none());
        let other = listings.place(of("b", 3)).await;
        assert!(other.is_ok());
        assert_eq!(unread(&listings), 2 * PIECE);
        drop(second);
        let ended = first.next().await.unwrap().is_err();
        assert_eq!(ended, listings.lock().readers.is_empty());
    }
}
