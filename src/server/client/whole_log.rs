//! Permits to read the whole revocation log, of which there are few at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use uuid::Uuid;

use super::reader::{GRACE, GaveWay, Reader, evict_latest};

/// Fraction (one in `SHARE_OF_ONE`) of all places that one access token may have.
const SHARE_OF_ONE: usize = 2;

/// Longest wait for a place, and the interval at which it is looked for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Size of the pieces, in bytes, in which the log is handed over: what a reader that gave way still keeps.
const PIECE: usize = 64 << 10;

/// Places for readers of the whole revocation log.
#[derive(Debug)]
pub(in crate::server) struct WholeLog {
    places: usize,
    most_of_one: usize,
    grace: Duration,
    readers: Mutex<Vec<Arc<Reader>>>,
}

/// Place of one reader. Released on drop.
#[derive(Debug)]
pub(in crate::server) struct Leave {
    log: Arc<WholeLog>,
    reader: Arc<Reader>,
}

impl WholeLog {
    /// Creates `places` places.
    pub(in crate::server) fn new(places: usize) -> Arc<Self> {
        Self::with(places, GRACE)
    }

    fn with(places: usize, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            places,
            most_of_one: places.div_ceil(SHARE_OF_ONE),
            grace,
            readers: Mutex::default(),
        })
    }

    /// Waits for a place for this access token. A reader that is too slow gives way to it. Returns `None` if all
    /// places, or all of the token's share, stay taken.
    pub(in crate::server) async fn leave(self: &Arc<Self>, token: Uuid) -> Option<Leave> {
        let until = Instant::now() + PATIENCE;
        loop {
            let leave = self.leave_now(token);
            if leave.is_some() || self.places == 0 || Instant::now() >= until {
                return leave;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn leave_now(self: &Arc<Self>, token: Uuid) -> Option<Leave> {
        let mut readers = self.lock();
        let own = readers.iter().filter(|reader| reader.token == token);
        let has_share = own.count() < self.most_of_one;
        if !has_share || readers.len() >= self.places {
            let may_go = |reader: &Reader| has_share || reader.token == token;
            if !evict_latest(&mut readers, self.grace, may_go) {
                return None;
            }
        }
        if readers.len() >= self.places {
            return None;
        }
        let reader = Arc::new(Reader::new(token, PIECE));
        readers.push(Arc::clone(&reader));
        Some(Leave {
            log: Arc::clone(self),
            reader,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave {
    /// Returns the next piece of what is to be read, or `None` if there has to be more of it first.
    ///
    /// # Errors
    /// Returns [`GaveWay`] if the reader had to make room for others.
    pub(in crate::server) fn next(&self) -> Result<Option<Bytes>, GaveWay> {
        self.reader.next()
    }

    /// Adds what is to be read next.
    pub(in crate::server) fn add(&self, text: Vec<u8>) {
        self.reader.add(text);
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut readers = self.log.lock();
        readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(50);

    #[test]
    fn one_token_has_half_of_the_places() {
        let log = WholeLog::new(4);
        let [one, other, third] = [1, 2, 3].map(Uuid::from_u128);
        let mut slow: Vec<_> = (0..4).filter_map(|_| log.leave_now(one)).collect();
        assert_eq!(slow.len(), 2);
        let others: Vec<_> = (0..4).filter_map(|_| log.leave_now(other)).collect();
        assert_eq!(others.len(), 2);
        assert!(log.leave_now(third).is_none());
        slow.pop();
        assert!(log.leave_now(third).is_some() && log.leave_now(one).is_some());
        drop((slow, others));
        assert!(log.lock().is_empty());
    }

    #[test]
    fn of_a_single_place_half_is_one() {
        let log = WholeLog::new(1);
        let only = log.leave_now(Uuid::nil());
        assert!(only.is_some() && log.leave_now(Uuid::nil()).is_none());
        assert!(WholeLog::new(0).leave_now(Uuid::nil()).is_none());
    }

    /// Two tokens have all places and read nothing.
    #[tokio::test]
    async fn a_slow_reader_gives_way_to_whoever_waits() {
        let log = WholeLog::with(4, MOMENT);
        let tokens = [1, 1, 2, 2].map(Uuid::from_u128);
        let readers: Vec<_> = tokens
            .into_iter()
            .filter_map(|token| log.leave_now(token))
            .collect();
        assert_eq!(readers.len(), 4);
        // The last two wait for the database, as a verification does: the client of none is slow.
        for reader in &readers[..2] {
            reader.add(vec![b'x'; 3 * PIECE]);
            assert_eq!(reader.next().unwrap().map(|piece| piece.len()), Some(PIECE));
        }
        assert!(log.leave_now(Uuid::from_u128(3)).is_none());
        // The pieces that were handed over pay for a quarter of a second.
        let began = Instant::now();
        let leave = log.leave(Uuid::from_u128(3)).await;
        assert!(leave.is_some() && began.elapsed() > MOMENT);
        let ended: Vec<_> = readers
            .iter()
            .map(|reader| reader.next().is_err())
            .collect();
        assert_eq!(ended.iter().filter(|has_ended| **has_ended).count(), 1);
        assert_eq!(ended[2..], [false, false]);
        let gone = readers
            .iter()
            .find(|reader| reader.next().is_err())
            .unwrap();
        gone.add(vec![b'x'; PIECE]);
        assert!(gone.reader.held() == 0);
        drop(readers);
        assert_eq!(log.lock().len(), 1);
    }
}
