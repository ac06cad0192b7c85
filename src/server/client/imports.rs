//! Places in which imports are read and stored, shared by projects and their access tokens.
//!
//! The project with the fewest places comes first, in it the access token with the fewest, then whoever has waited the
//! longest. An import can take as long as a request may. It therefore gives its place, whenever it has stored some of
//! its rows, to one that has a better claim to it, and goes on when it is its turn again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::turns::NoTurn;

/// Project and token that an import counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Claim {
    pub(in crate::server) project: String,
    pub(in crate::server) token: Uuid,
}

/// Places of imports.
#[derive(Debug)]
pub(in crate::server) struct Imports {
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

/// Place of an import, or position in the queue for one. Released on drop.
#[derive(Debug)]
pub(in crate::server) struct ImportPlace {
    imports: Arc<Imports>,
    id: u64,
    claim: Claim,
}

/// View of a place, for whoever does not hold it.
#[derive(Debug)]
pub(in crate::server) struct Watch {
    imports: Arc<Imports>,
    id: u64,
}

impl Imports {
    /// Creates `at_once` places, for which at most `most_waiting` imports may wait.
    pub(in crate::server) fn new(at_once: usize, most_waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            at_once,
            most_waiting,
            state: Mutex::default(),
        })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Returns [`NoTurn`] if there is none within `patience`, or if too many are waiting.
    pub(in crate::server) async fn place(
        self: &Arc<Self>,
        claim: Claim,
        patience: Duration,
    ) -> Result<ImportPlace, NoTurn> {
        let (place, granted) = {
            let mut state = self.lock();
            let id = state.next;
            let granted = state.wait(self, id, claim.clone(), false);
            let imports = Arc::clone(self);
            (ImportPlace { imports, id, claim }, granted)
        };
        match tokio::time::timeout(patience, granted).await {
            Ok(Ok(())) => Ok(place),
            _ => Err(NoTurn),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImportPlace {
    /// Returns a view of the place.
    pub(in crate::server) fn watch(&self) -> Watch {
        Watch {
            imports: Arc::clone(&self.imports),
            id: self.id,
        }
    }

    /// Gives the place to an import with a better claim, if one waits, and waits for the next one.
    ///
    /// # Errors
    /// Returns [`NoTurn`] if too many are waiting.
    pub(in crate::server) async fn share(&self) -> Result<(), NoTurn> {
        let granted = {
            let mut state = self.imports.lock();
            if !state.is_wanted(self.id) {
                return Ok(());
            }
            state.taken.remove(&self.id);
            state.wait(&self.imports, self.id, self.claim.clone(), true)
        };
        granted.await.map_err(|_| NoTurn)
    }
}

impl Watch {
    /// Returns whether an import with a better claim to the place is waiting.
    pub(in crate::server) fn is_wanted(&self) -> bool {
        self.imports.lock().is_wanted(self.id)
    }
}

impl Drop for ImportPlace {
    fn drop(&mut self) {
        let mut state = self.imports.lock();
        state.waiting.retain(|waiting| waiting.id != self.id);
        state.taken.remove(&self.id);
        state.grant(self.imports.at_once);
    }
}

impl State {
    fn wait(
        &mut self,
        imports: &Imports,
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
        self.grant(imports.at_once);
        if self.waiting.len() > imports.most_waiting {
            self.thin_out();
        }
        granted
    }

    /// Returns the number of places that the project, and the access token, of a claim have.
    fn places_of(&self, claim: &Claim) -> (usize, usize) {
        let of_project = self.taken.values();
        let of_project = of_project.filter(|taken| taken.project == claim.project);
        let of_token = of_project.clone().filter(|taken| *taken == claim);
        (of_project.count(), of_token.count())
    }

    /// Returns whether the place should go to somebody who waits: who has none, or would still have fewer with it than
    /// its holder has now.
    fn is_wanted(&self, id: u64) -> bool {
        let Some(holder) = self.taken.get(&id) else {
            return false;
        };
        let (of_project, of_token) = self.places_of(holder);
        self.waiting.iter().any(|waiting| {
            let (project, token) = self.places_of(&waiting.claim);
            let (its, holders) = if waiting.claim.project == holder.project {
                (token, of_token)
            } else {
                (project, of_project)
            };
            waiting.claim != *holder && (its == 0 || its + 1 < holders)
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

    /// Refuses a random waiter of the project of which the most wait, one that has not begun if there is any.
    fn thin_out(&mut self) {
        let waiting = |project: &str| {
            let all = self.waiting.iter();
            all.filter(|other| other.claim.project == project).count()
        };
        let last = (0..self.waiting.len()).max_by_key(|at| {
            let Waiting {
                claim, is_begun, ..
            } = &self.waiting[*at];
            (!is_begun, waiting(&claim.project), rand::random::<u32>())
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

    fn of(project: &str) -> Claim {
        Claim {
            project: project.to_owned(),
            token: Uuid::nil(),
        }
    }

    async fn places(imports: &Arc<Imports>, project: &str, count: usize) -> Vec<ImportPlace> {
        let places = (0..count).map(|_| imports.place(of(project), HOUR));
        futures_util::future::try_join_all(places).await.unwrap()
    }

    #[tokio::test]
    async fn whoever_has_all_places_gives_one_to_whoever_has_none() {
        let imports = Imports::new(4, 8);
        let mine = places(&imports, "a", 4).await;
        let own = Box::pin(imports.place(of("a"), HOUR));
        assert!(own.now_or_never().is_none());
        assert!(!mine[0].watch().is_wanted(), "by its own kind only");
        let mut other = Box::pin(imports.place(of("b"), HOUR));
        assert!(poll!(&mut other).is_pending());
        assert!(mine[0].watch().is_wanted());
        let mut shared = Box::pin(mine[0].share());
        assert!(poll!(&mut shared).is_pending());
        let other = other.await.unwrap();
        // Whoever has given up a place no longer has it, nor does anybody want it of him.
        assert!(!mine[0].watch().is_wanted() && !mine[1].watch().is_wanted());
        drop(other);
        shared.await.unwrap();
        assert_eq!(imports.lock().taken.len(), 4);
    }

    #[tokio::test]
    async fn access_tokens_of_a_project_share_as_projects_do() {
        let imports = Imports::new(2, 8);
        let mine = places(&imports, "a", 2).await;
        let token = Uuid::from_u128(1);
        let claim = Claim { token, ..of("a") };
        let mut other = Box::pin(imports.place(claim, HOUR));
        assert!(poll!(&mut other).is_pending());
        let mut shared = Box::pin(mine[1].share());
        assert!(poll!(&mut shared).is_pending());
        assert!(other.await.is_ok());
    }

    #[tokio::test]
    async fn whoever_asks_the_most_is_refused_first_and_leaves_nothing_behind() {
        let imports = Imports::new(1, 4);
        let held = places(&imports, "a", 1).await;
        let mut other = Box::pin(imports.place(of("b"), HOUR));
        assert!(poll!(&mut other).is_pending());
        let mut crowd: Vec<_> = (0..8)
            .map(|_| Box::pin(imports.place(of("a"), HOUR)))
            .collect();
        for waiting in &mut crowd {
            let _ = poll!(waiting);
        }
        assert_eq!(imports.lock().waiting.len(), 4);
        drop(crowd);
        assert_eq!(imports.lock().waiting.len(), 1);
        drop(held);
        drop(other.await.unwrap());
        assert!(imports.lock().taken.is_empty());
        let late = imports.place(of("a"), Duration::ZERO).await;
        assert!(late.is_ok());
    }
}
