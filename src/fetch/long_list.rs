//! The place of long lists of references, of which there is one.
//!
//! Whoever reads one gives way to others after a while beyond what its bytes pay for, and comes again behind them. It
//! has twice as long each time, as far as those that wait had to give way themselves: lists of slow servers are all
//! read in the end, and those of fast ones wait for none of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::FetchError;
use super::waiter::Waiter;

/// Time in the place while others wait for it, beyond what the bytes pay for.
const TURN: Duration = Duration::from_secs(2);

/// Number of bytes that pay for a second in the place while others wait for it.
const RATE: u64 = 2 << 20;

/// Interval at which it is checked whether others wait.
const LOOK: Duration = Duration::from_millis(250);

/// The most doublings of a turn.
const DOUBLED_MAX: u32 = 8;

/// The place of long lists, and those that wait for it.
#[derive(Debug)]
pub(super) struct LongLists {
    free: Arc<Semaphore>,
    /// Number of those that wait and never gave way.
    new: AtomicUsize,
    /// Number of those that wait and gave way before.
    late: AtomicUsize,
}

impl Default for LongLists {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(1)),
            new: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
        }
    }
}

/// Place for a long list of references, once it is needed. Short ones need none.
#[derive(Debug, Default)]
pub struct LongList {
    turn: Option<Turn>,
    /// Number of times that the list gave way to others.
    gave_way: u32,
    /// `true` if a list that finds no place is not to wait for one.
    is_hasty: bool,
}

/// The place that a list has, until dropped.
#[derive(Debug)]
struct Turn {
    lists: Arc<LongLists>,
    began: Instant,
    /// Number of bytes that came since then.
    came: u64,
    _place: OwnedSemaphorePermit,
}

impl LongList {
    /// Creates one for a list that ends with [`FetchError::Busy`] if there is another long one.
    pub(super) fn hasty() -> Self {
        Self {
            is_hasty: true,
            ..Self::default()
        }
    }

    /// Creates one for a list that gave way so many times.
    pub(super) fn after(gave_way: u32) -> Self {
        Self {
            gave_way,
            ..Self::default()
        }
    }

    /// Creates one for the same list, to be asked for in another way.
    pub(super) fn anew(&self) -> Self {
        Self {
            turn: None,
            ..*self
        }
    }

    /// Takes the place, unless it is taken already, after waiting for those that came before, for `wait` at most.
    ///
    /// # Errors
    /// Returns [`FetchError::Busy`] if they took too long.
    pub(super) async fn take(
        &mut self,
        lists: &Arc<LongLists>,
        wait: Duration,
    ) -> Result<(), FetchError> {
        if self.turn.is_some() {
            return Ok(());
        }
        let wait = if self.is_hasty { Duration::ZERO } else { wait };
        let waiting = match self.gave_way {
            0 => &lists.new,
            _ => &lists.late,
        };
        let waiter = Waiter::new(waiting);
        let place = timeout(wait, Arc::clone(&lists.free).acquire_owned()).await;
        drop(waiter);
        let place = place.map_err(|_| FetchError::Busy)?;
        self.turn = Some(Turn {
            lists: Arc::clone(lists),
            began: Instant::now(),
            came: 0,
            _place: place.map_err(|_| FetchError::Busy)?,
        });
        Ok(())
    }

    /// Counts bytes that came.
    pub(super) fn count(&mut self, bytes: usize) {
        if let Some(turn) = &mut self.turn {
            turn.came += bytes as u64;
        }
    }

    /// Waits for the server, as long as others may wait for the place.
    ///
    /// # Errors
    /// Returns [`FetchError::Outpaced`] if they waited for too long.
    pub(super) async fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T, FetchError> {
        tokio::pin!(answer);
        loop {
            if let Ok(answer) = timeout(LOOK, &mut answer).await {
                return Ok(answer);
            }
            self.check()?;
        }
    }

    /// Checks that others may wait longer for the place.
    ///
    /// # Errors
    /// Returns [`FetchError::Outpaced`] otherwise.
    pub(super) fn check(&self) -> Result<(), FetchError> {
        match &self.turn {
            Some(turn) if turn.is_over(self.gave_way) => Err(FetchError::Outpaced {
                seconds: turn.began.elapsed().as_secs(),
            }),
            _ => Ok(()),
        }
    }
}

impl Turn {
    fn is_over(&self, gave_way: u32) -> bool {
        let paid = Duration::from_millis(self.came.saturating_mul(1_000) / RATE);
        let unpaid = self.began.elapsed().saturating_sub(paid);
        let has = |waiting: &AtomicUsize| waiting.load(Ordering::Relaxed) > 0;
        let doubled = TURN * (1 << gave_way.min(DOUBLED_MAX));
        has(&self.lists.new) && unpaid > TURN || has(&self.lists.late) && unpaid > doubled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(lists: &Arc<LongLists>, gave_way: u32, seconds: u64) -> LongList {
        let mut list = LongList::after(gave_way);
        list.take(lists, Duration::ZERO).await.unwrap();
        let turn = list.turn.as_mut().unwrap();
        turn.began = Instant::now()
            .checked_sub(Duration::from_secs(seconds))
            .unwrap();
        list
    }

    #[tokio::test]
    async fn a_list_gives_way_after_what_its_bytes_pay_for() {
        let lists = Arc::new(LongLists::default());
        let mut list = taken(&lists, 0, 5).await;
        assert!(list.check().is_ok(), "nobody waits");
        let waiter = Waiter::new(&lists.new);
        assert!(list.check().is_err());
        list.count(8 << 20);
        assert!(list.check().is_ok());
        drop(waiter);
        // It does not wait for itself.
        assert!(list.take(&lists, Duration::ZERO).await.is_ok());
        let mut hasty = LongList::hasty();
        let busy = hasty.take(&lists, Duration::from_mins(1)).await;
        assert!(matches!(busy, Err(FetchError::Busy)));
        drop(list);
        assert!(hasty.take(&lists, Duration::ZERO).await.is_ok());
    }

    #[tokio::test]
    async fn lists_that_gave_way_have_longer_turns_among_each_other() {
        let lists = Arc::new(LongLists::default());
        let _late = Waiter::new(&lists.late);
        for (gave_way, seconds, is_over) in [
            (0, 1, false),
            (0, 3, true),
            (2, 7, false),
            (2, 9, true),
            (99, 500, false),
            (99, 600, true),
        ] {
            let list = taken(&lists, gave_way, seconds).await;
            assert_eq!(list.check().is_err(), is_over, "{gave_way} {seconds}");
        }
        let _new = Waiter::new(&lists.new);
        assert!(taken(&lists, 8, 3).await.check().is_err());
    }
}
