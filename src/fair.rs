//! Places for work that anybody can ask for any number of times, shared by groups, their members and parts of these: by
//! projects and access tokens, by senders, the owners of repositories that they tell of, and the repositories.
//!
//! The group with the fewest places comes first, in it the member with the fewest, in that the part with the fewest, then
//! whoever has waited the longest. Work that takes long gives its place, whenever a part of it is done, to one that has a
//! better claim to it, and goes on when it is its turn again. When too many wait, one is refused of those that wait the
//! most often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Error returned when there was no place in time, or too many waited for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoPlace;

/// Levels of a claim: group, member, part of a member.
const LEVELS: usize = 3;

/// Group, member of it, and part of that, that a place counts against. Parts may have no names, where there are none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Claim([String; LEVELS]);

impl Claim {
    pub(crate) fn new(group: &str, member: &str, part: &str) -> Self {
        Self([group, member, part].map(str::to_owned))
    }

    /// Returns the first level at which they differ. `None` if they are the same.
    fn parts_from(&self, other: &Self) -> Option<usize> {
        let mut pairs = self.0.iter().zip(&other.0);
        pairs.position(|(mine, its)| mine != its)
    }
}

/// Fixed number of places.
#[derive(Debug)]
pub(crate) struct FairPlaces {
    at_once: usize,
    most_waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: HashMap<u64, Claim>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    /// Position among equals.
    turn: u64,
    claim: Claim,
    is_begun: bool,
    go: oneshot::Sender<()>,
}

/// Place, or position in the queue for one. Released on drop.
#[derive(Debug)]
pub(crate) struct FairPlace {
    places: Arc<FairPlaces>,
    id: u64,
    claim: Claim,
}

/// View of a place, for whoever does not hold it.
#[derive(Debug)]
pub(crate) struct Watch {
    places: Arc<FairPlaces>,
    id: u64,
}

impl FairPlaces {
    /// Creates `at_once` places, for which at most `most_waiting` may wait.
    pub(crate) fn new(at_once: usize, most_waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            at_once,
            most_waiting,
            state: Mutex::default(),
        })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Returns [`NoPlace`] if there is none within `patience`, or if too many are waiting.
    pub(crate) async fn place(
        self: &Arc<Self>,
        claim: Claim,
        patience: Duration,
    ) -> Result<FairPlace, NoPlace> {
        let (place, granted) = {
            let mut state = self.lock();
            let id = state.next;
            let granted = state.wait(self, id, claim.clone(), false);
            let places = Arc::clone(self);
            (FairPlace { places, id, claim }, granted)
        };
        match tokio::time::timeout(patience, granted).await {
            Ok(Ok(())) => Ok(place),
            _ => Err(NoPlace),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FairPlace {
    /// Returns a view of the place.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            places: Arc::clone(&self.places),
            id: self.id,
        }
    }

    /// Gives the place to whoever has a better claim, if anybody does, and waits for the next one.
    ///
    /// # Errors
    /// Returns [`NoPlace`] if too many are waiting.
    pub(crate) async fn share(&self) -> Result<(), NoPlace> {
        let granted = {
            let mut state = self.places.lock();
            if !state.is_wanted(self.id) {
                return Ok(());
            }
            state.taken.remove(&self.id);
            state.wait(&self.places, self.id, self.claim.clone(), true)
        };
        granted.await.map_err(|_| NoPlace)
    }
}

impl Watch {
    /// Returns whether somebody with a better claim to the place is waiting.
    pub(crate) fn is_wanted(&self) -> bool {
        self.places.lock().is_wanted(self.id)
    }
}

impl Drop for FairPlace {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.waiting.retain(|waiting| waiting.id != self.id);
        state.taken.remove(&self.id);
        state.grant(self.places.at_once);
    }
}

impl State {
    fn wait(
        &mut self,
        places: &FairPlaces,
        id: u64,
        claim: Claim,
        is_begun: bool,
    ) -> oneshot::Receiver<()> {
        let (go, granted) = oneshot::channel();
        let turn = self.next;
        self.next += 1;
        self.waiting.push(Waiting {
            id,
            turn,
            claim,
            is_begun,
            go,
        });
        self.grant(places.at_once);
        if self.waiting.len() > places.most_waiting {
            self.thin_out();
        }
        granted
    }

    /// Returns the number of places that a claim has with others, at each level.
    fn places_of(&self, claim: &Claim) -> [usize; LEVELS] {
        let shared = |level| {
            let taken = self.taken.values();
            let of_it = taken.filter(|taken| taken.parts_from(claim).is_none_or(|at| at > level));
            of_it.count()
        };
        std::array::from_fn(shared)
    }

    /// Returns whether the place should go to somebody who waits: who has none, or would still have fewer with it than
    /// its holder has now.
    fn is_wanted(&self, id: u64) -> bool {
        let Some(holder) = self.taken.get(&id) else {
            return false;
        };
        let holders = self.places_of(holder);
        self.waiting.iter().any(|waiting| {
            let Some(level) = holder.parts_from(&waiting.claim) else {
                return false;
            };
            let its = self.places_of(&waiting.claim)[level];
            its == 0 || its + 1 < holders[level]
        })
    }

    /// Grants the places that are free.
    fn grant(&mut self, at_once: usize) {
        while self.taken.len() < at_once {
            let rank = |waiting: &Waiting| (self.places_of(&waiting.claim), waiting.turn);
            let first = (0..self.waiting.len()).min_by_key(|at| rank(&self.waiting[*at]));
            let Some(at) = first else {
                return;
            };
            let next = self.waiting.remove(at);
            self.taken.insert(next.id, next.claim);
            // If nobody listens anymore, the place is about to be dropped.
            let _ = next.go.send(());
        }
    }

    /// Refuses a random waiter of the group, in it the member, and in that the part, that wait the most often, one that has
    /// not begun if there is any.
    fn thin_out(&mut self) {
        let mut all: HashMap<&[String], u32> = HashMap::new();
        for Waiting { claim, .. } in &self.waiting {
            for level in 1..=LEVELS {
                *all.entry(&claim.0[..level]).or_default() += 1;
            }
        }
        let last = (0..self.waiting.len()).max_by_key(|at| {
            let Waiting {
                claim, is_begun, ..
            } = &self.waiting[*at];
            let its: [u32; LEVELS] = std::array::from_fn(|level| all[&claim.0[..=level]]);
            (!is_begun, its, rand::random::<u32>())
        });
        if let Some(last) = last {
            self.waiting.remove(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, poll};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn of(group: &str) -> Claim {
        Claim::new(group, "", "")
    }

    async fn places(all: &Arc<FairPlaces>, group: &str, count: usize) -> Vec<FairPlace> {
        let places = (0..count).map(|_| all.place(of(group), HOUR));
        futures_util::future::try_join_all(places).await.unwrap()
    }

    #[tokio::test]
    async fn whoever_has_all_places_gives_one_to_whoever_has_none() {
        let all = FairPlaces::new(4, 8);
        let mine = places(&all, "a", 4).await;
        let own = Box::pin(all.place(of("a"), HOUR));
        assert!(own.now_or_never().is_none());
        assert!(!mine[0].watch().is_wanted(), "by its own kind only");
        let mut other = Box::pin(all.place(of("b"), HOUR));
        assert!(poll!(&mut other).is_pending());
        assert!(mine[0].watch().is_wanted());
        let mut shared = Box::pin(mine[0].share());
        assert!(poll!(&mut shared).is_pending());
        let other = other.await.unwrap();
        // Whoever has given up a place no longer has it, nor does anybody want it of him.
        assert!(!mine[0].watch().is_wanted() && !mine[1].watch().is_wanted());
        drop(other);
        shared.await.unwrap();
        assert_eq!(all.lock().taken.len(), 4);
    }

    #[tokio::test]
    async fn members_of_a_group_and_parts_of_a_member_share_as_groups_do() {
        for claim in [Claim::new("a", "1", ""), Claim::new("a", "", "1")] {
            let all = FairPlaces::new(2, 8);
            let mine = places(&all, "a", 2).await;
            let mut other = Box::pin(all.place(claim, HOUR));
            assert!(poll!(&mut other).is_pending());
            let mut shared = Box::pin(mine[1].share());
            assert!(poll!(&mut shared).is_pending());
            assert!(other.await.is_ok());
        }
    }

    /// However many came before.
    #[tokio::test]
    async fn a_part_that_has_no_place_is_next() {
        let all = FairPlaces::new(2, 8);
        let of = |part| Claim::new("a", "1", part);
        let first = all.place(of("x"), HOUR).await.unwrap();
        let second = all.place(of("x"), HOUR).await.unwrap();
        let mut many: Vec<_> = (0..4).map(|_| Box::pin(all.place(of("x"), HOUR))).collect();
        for waiting in &mut many {
            assert!(poll!(waiting).is_pending());
        }
        let mut quiet = Box::pin(all.place(of("y"), HOUR));
        assert!(poll!(&mut quiet).is_pending());
        drop(first);
        let _quiet = quiet.now_or_never().unwrap().unwrap();
        assert!(poll!(&mut many[0]).is_pending());
        drop(second);
        assert!(poll!(&mut many[0]).is_ready());
    }

    #[tokio::test]
    async fn the_member_that_asks_the_most_is_refused_before_others_of_its_group() {
        let all = FairPlaces::new(1, 3);
        let _held = places(&all, "a", 1).await;
        let member = |member: &str| Claim::new("a", member, "");
        let mut others = ["1", "2"].map(|other| Box::pin(all.place(member(other), HOUR)));
        for other in &mut others {
            assert!(poll!(other).is_pending());
        }
        let mut crowd: Vec<_> = (0..20)
            .map(|_| Box::pin(all.place(member("3"), HOUR)))
            .collect();
        for waiting in &mut crowd {
            let _ = poll!(waiting);
        }
        let waiting = &all.lock().waiting;
        let waiting: Vec<_> = waiting.iter().map(|one| &*one.claim.0[1]).collect();
        assert_eq!(waiting, ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn whoever_asks_the_most_is_refused_first_and_leaves_nothing_behind() {
        let all = FairPlaces::new(1, 4);
        let held = places(&all, "a", 1).await;
        let mut other = Box::pin(all.place(of("b"), HOUR));
        assert!(poll!(&mut other).is_pending());
        let mut crowd: Vec<_> = (0..8).map(|_| Box::pin(all.place(of("a"), HOUR))).collect();
        for waiting in &mut crowd {
            let _ = poll!(waiting);
        }
        assert_eq!(all.lock().waiting.len(), 4);
        drop(crowd);
        assert_eq!(all.lock().waiting.len(), 1);
        drop(held);
        drop(other.await.unwrap());
        assert!(all.lock().taken.is_empty());
        let late = all.place(of("a"), Duration::ZERO).await;
        assert!(late.is_ok());
    }
}
