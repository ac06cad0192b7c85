//! Memory shared by the responses of all APIs that are polled.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Response;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::FetchError;
use super::json::as_json;
use super::pace::{Pace, PaceLimits};
use super::waiter::Waiter;
use crate::memory;

/// Memory of bodies that are not in the large place, of all servers together, in bytes.
const ORDINARY_BYTES: usize = memory::PAGES;

/// Maximum length of a body outside the large place, in bytes. A page of 100 events has some 300 KiB.
const ORDINARY: usize = 1 << 20;

/// Unit in which memory is taken, in bytes.
const STEP: usize = 16 << 10;

/// Maximum time that a body waits for memory.
const WAIT: Duration = Duration::from_mins(2);

/// Time in the large place while others wait for it, beyond what the bytes pay for.
const LARGE_TURN: Duration = Duration::from_secs(2);

/// Number of bytes that pay for a second in the large place while others wait for it.
const LARGE_RATE: u64 = 2 << 20;

/// Interval at which it is checked whether others wait.
const LOOK: Duration = Duration::from_millis(250);

/// Required pace of an API's response: a page of 8 MiB within a minute, and no trickling.
const API_PACE: PaceLimits = PaceLimits {
    stall: Duration::from_secs(30),
    total: Duration::from_mins(1),
    grace: Duration::from_secs(10),
    window: Duration::from_secs(20),
    rate: 1 << 10,
    prepare: None,
};

/// The memory of this process.
static ANSWERS: Answers = Answers::new();

/// Memory for bodies: some of up to [`ORDINARY`] bytes each, and a single large place. What a body holds outside the
/// large place is given back when it moves there, and whoever has the large place waits for nothing: so one always
/// gets on, and the sum is known, however many servers send however much.
#[derive(Debug)]
struct Answers {
    ordinary: Semaphore,
    large: Semaphore,
    /// Number of bodies that wait for the large place.
    waiting: AtomicUsize,
}

/// Memory taken by one body.
#[derive(Debug)]
struct Room {
    answers: &'static Answers,
    ordinary: Option<SemaphorePermit<'static>>,
    large: Option<SemaphorePermit<'static>>,
    /// Number of bytes that may be held.
    bytes: usize,
}

/// Body of a response. Its memory is shared with all others, so it should be dropped as soon as it was read.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    room: Room,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body {
    /// Returns the JSON of a body, as [`as_json`] does.
    pub(crate) fn json(&mut self) -> &str {
        as_json(&mut self.bytes)
    }

    /// Waits until others wait for memory, for whose sake the body should be dropped.
    pub(crate) async fn wanted(&self) {
        while self.room.answers.waiting.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Answers {
    const fn new() -> Self {
        Self {
            ordinary: Semaphore::const_new(ORDINARY_BYTES / STEP),
            large: Semaphore::const_new(1),
            waiting: AtomicUsize::new(0),
        }
    }

    fn room(&'static self) -> Room {
        Room {
            answers: self,
            ordinary: None,
            large: None,
            bytes: 0,
        }
    }
}

impl Room {
    /// Waits until `needed` bytes may be held, of a body of at most `limit` bytes.
    async fn grow(&mut self, needed: usize, limit: usize) -> Result<(), FetchError> {
        if needed <= self.bytes {
            return Ok(());
        }
        // Twice as much each time, so that a long body is not copied again and again.
        let wanted = needed.max(self.bytes * 2).min(limit);
        if wanted <= ORDINARY && self.take_ordinary(wanted) {
            return Ok(());
        }
        if needed <= ORDINARY && self.take_ordinary(needed) {
            return Ok(());
        }
        if self.large.is_none() {
            let _waiter = Waiter::new(&self.answers.waiting);
            let large = tokio::time::timeout(WAIT, self.answers.large.acquire()).await;
            // The semaphore is never closed.
            let large = large.map_err(|_| FetchError::Crowded)?.ok();
            (self.large, self.ordinary) = (large, None);
        }
        self.bytes = wanted;
        Ok(())
    }

    /// Takes what is missing to hold `bytes` bytes, if it is free.
    fn take_ordinary(&mut self, bytes: usize) -> bool {
        let has = self
            .ordinary
            .as_ref()
            .map_or(0, SemaphorePermit::num_permits);
        let missing = bytes.div_ceil(STEP).saturating_sub(has);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let Ok(more) = self.answers.ordinary.try_acquire_many(missing) else {
            return false;
        };
        match &mut self.ordinary {
            Some(ordinary) => ordinary.merge(more),
            none => *none = Some(more),
        }
        self.bytes = bytes.next_multiple_of(STEP);
        true
    }

    /// Returns whether this body has had the large place for too long since `began`, by the `bytes` that came there.
    fn is_over(&self, began: Instant, bytes: usize) -> bool {
        let paid = Duration::from_millis(bytes as u64 * 1_000 / LARGE_RATE);
        let others = self.answers.waiting.load(Ordering::Relaxed);
        self.large.is_some() && others > 0 && began.elapsed() > LARGE_TURN + paid
    }
}

/// Reads the body of an API's response. Returns `None` if it is longer than `limit` bytes.
///
/// # Errors
/// Returns the errors of [`Pace::chunk`]: the body has to arrive within a minute. Returns [`FetchError::Crowded`] if
/// the bodies of others left no room for it, or if it was too slow for others to wait.
pub(crate) async fn read_body(
    response: &mut Response,
    limit: usize,
) -> Result<Option<Body>, FetchError> {
    let mut pace = Pace::new(API_PACE);
    let mut bytes = Vec::new();
    let mut room = ANSWERS.room();
    let mut large_since = None;
    loop {
        // The pace goes on where it was when a look at those who wait came in between.
        let Ok(chunk) = tokio::time::timeout(LOOK, pace.chunk(response)).await else {
            check_turn(&room, large_since)?;
            continue;
        };
        let Some(chunk) = chunk? else {
            return Ok(Some(Body { bytes, room }));
        };
        let needed = bytes.len() + chunk.len();
        if needed > limit {
            return Ok(None);
        }
        room.grow(needed, limit).await?;
        bytes.reserve_exact(room.bytes.min(limit) - bytes.len());
        bytes.extend_from_slice(&chunk);
        if room.large.is_some() {
            let (_, came) = large_since.get_or_insert((Instant::now(), 0));
            *came += chunk.len();
        }
        check_turn(&room, large_since)?;
    }
}

fn check_turn(room: &Room, large_since: Option<(Instant, usize)>) -> Result<(), FetchError> {
    match large_since {
        Some((began, came)) if room.is_over(began, came) => Err(FetchError::Crowded),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> &'static Answers {
        Box::leak(Box::new(Answers::new()))
    }

    #[tokio::test]
    async fn ordinary_bodies_share_what_there_is_and_large_ones_a_single_place() {
        let (answers, limit) = (answers(), 32 << 20);
        let mut rooms = Vec::new();
        for _ in 0..ORDINARY_BYTES / ORDINARY {
            let mut room = answers.room();
            for needed in [1, STEP, STEP + 1, ORDINARY / 2, ORDINARY] {
                room.grow(needed, limit).await.unwrap();
                assert!((needed..=ORDINARY).contains(&room.bytes));
            }
            assert!(room.large.is_none());
            rooms.push(room);
        }
        assert_eq!(answers.ordinary.available_permits(), 0);
        // Whoever comes when all is taken has the large place.
        let mut next = answers.room();
        next.grow(1, limit).await.unwrap();
        assert!(next.large.is_some());
        // A body that grows waits for it, and gives back what it had.
        let mut last = rooms.pop().unwrap();
        {
            let grown = last.grow(ORDINARY + 1, limit);
            tokio::pin!(grown);
            let soon = tokio::time::timeout(Duration::from_millis(50), &mut grown);
            assert!(soon.await.is_err());
            assert_eq!(answers.waiting.load(Ordering::Relaxed), 1);
            drop(next);
            grown.await.unwrap();
        }
        assert_eq!(answers.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(answers.ordinary.available_permits(), ORDINARY / STEP);
        // In the large place it waits for nobody.
        last.grow(limit, limit).await.unwrap();
        drop((rooms, last));
        assert_eq!(answers.ordinary.available_permits(), ORDINARY_BYTES / STEP);
        assert_eq!(answers.large.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_body_that_is_kept_is_told_that_others_wait() {
        let body = Body {
            bytes: Vec::new(),
            room: answers().room(),
        };
        let soon = tokio::time::timeout(LOOK * 2, body.wanted());
        assert!(soon.await.is_err());
        let _waiter = Waiter::new(&body.room.answers.waiting);
        body.wanted().await;
    }

    #[tokio::test]
    async fn the_large_place_is_left_to_others_after_what_the_bytes_pay_for() {
        let answers = answers();
        let mut room = answers.room();
        room.grow(ORDINARY + 1, 32 << 20).await.unwrap();
        let began = Instant::now() - Duration::from_secs(5);
        assert!(!room.is_over(began, 0), "nobody waits");
        let _waiter = Waiter::new(&answers.waiting);
        assert!(room.is_over(began, 5 << 20));
        assert!(!room.is_over(began, 20 << 20));
        let ordinary = answers.room();
        assert!(!ordinary.is_over(began, 0));
    }
}
