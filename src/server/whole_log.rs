//! Permits to read the whole revocation log, of which there are few at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// Fraction (one in `SHARE_OF_ONE`) of all places that one access token may have: a slow reader keeps nobody else
/// waiting.
const SHARE_OF_ONE: usize = 2;

/// Places for readers of the whole revocation log.
#[derive(Debug)]
pub(super) struct WholeLog {
    places: Arc<Semaphore>,
    most_of_one: usize,
    taken: Mutex<HashMap<Uuid, usize>>,
}

/// Place of one reader. Released on drop.
#[derive(Debug)]
pub(super) struct Leave {
    log: Arc<WholeLog>,
    token: Uuid,
    _place: OwnedSemaphorePermit,
}

impl WholeLog {
    /// Creates `places` places.
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places)),
            most_of_one: places.div_ceil(SHARE_OF_ONE),
            taken: Mutex::default(),
        })
    }

    /// Takes a place for this access token. Returns `None` if all places, or all of the token's share, are taken.
    pub(super) fn leave(self: &Arc<Self>, token: Uuid) -> Option<Leave> {
        let mut counts = self.lock();
        let of_token = counts.get(&token).copied().unwrap_or(0);
        if of_token >= self.most_of_one {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        counts.insert(token, of_token + 1);
        Some(Leave {
            log: Arc::clone(self),
            token,
            _place: place,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut taken = self.log.lock();
        if let Some(count) = taken.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_has_half_of_the_places() {
        let log = WholeLog::new(4);
        let [one, other, third] = [1, 2, 3].map(Uuid::from_u128);
        let mut slow: Vec<_> = (0..4).filter_map(|_| log.leave(one)).collect();
        assert_eq!(slow.len(), 2);
        let others: Vec<_> = (0..4).filter_map(|_| log.leave(other)).collect();
        assert_eq!(others.len(), 2);
        assert!(log.leave(third).is_none());
        slow.pop();
        assert!(log.leave(third).is_some() && log.leave(one).is_some());
        drop((slow, others));
        assert!(log.lock().is_empty());
    }

    #[test]
    fn of_a_single_place_half_is_one() {
        let log = WholeLog::new(1);
        let only = log.leave(Uuid::nil());
        assert!(only.is_some() && log.leave(Uuid::nil()).is_none());
        assert!(WholeLog::new(0).leave(Uuid::nil()).is_none());
    }
}
