//! Readers of answers that others wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use uuid::Uuid;

/// Time that a reader may take while others want its place, and the number of bytes per second that it has to read
/// beyond that.
pub(super) const GRACE: Duration = Duration::from_secs(2);
const RATE: usize = 256 << 10;

/// Reader of an answer that is handed over in pieces.
#[derive(Debug)]
pub(in crate::server) struct Reader {
    pub(super) token: Uuid,
    piece: usize,
    progress: Mutex<Progress>,
}

/// Progress of a reader.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that were not handed over yet, and the size of what they are a part of: as long as there are any, all of
    /// that is in memory.
    rest: Bytes,
    whole: usize,
    /// Bytes of the last piece, until the next one is asked for: they are being written.
    in_flight: usize,
    handed_over: usize,
    /// Time that the reader itself took so far, and since when it takes its time.
    took: Duration,
    since: Option<Instant>,
    has_given_way: bool,
}

/// Error of a reader that was too slow for others to wait.
#[derive(Debug, thiserror::Error)]
#[error("the answer was read too slowly while others waited")]
pub(in crate::server) struct GaveWay;

/// Lets the reader give way, of those that `may_go`, that is the latest. Returns whether there was one.
pub(in crate::server) fn evict_latest(
    readers: &mut Vec<Arc<Reader>>,
    grace: Duration,
    may_go: impl Fn(&Reader) -> bool,
) -> bool {
    let now = Instant::now();
    let late = readers.iter().enumerate();
    let late = late.filter(|(_, reader)| may_go(reader));
    let late = late.filter_map(|(at, reader)| Some((reader.delay(grace, now)?, at)));
    let latest = late.max();
    if let Some((_, at)) = latest {
        readers.swap_remove(at).give_way();
    }
    latest.is_some()
}

impl Reader {
    /// Creates a reader for this access token, with nothing to read yet, to which at most `piece` bytes are handed over
    /// at a time.
    pub(in crate::server) fn new(token: Uuid, piece: usize) -> Self {
        Self {
            token,
            piece,
            progress: Mutex::default(),
        }
    }

    /// Returns by how much the reader is late, or `None` if it is in time.
    pub(in crate::server) fn delay(&self, grace: Duration, now: Instant) -> Option<Duration> {
        let progress = self.lock();
        let takes = progress
            .since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let may_take = grace + Duration::from_millis((progress.handed_over / (RATE / 1000)) as u64);
        let delay = (progress.took + takes).checked_sub(may_take)?;
        (!delay.is_zero()).then_some(delay)
    }

    /// Returns the number of bytes that are kept for the reader.
    pub(in crate::server) fn held(&self) -> usize {
        let progress = self.lock();
        if progress.rest.is_empty() {
            progress.in_flight
        } else {
            progress.whole + progress.in_flight
        }
    }

    /// Ends the reading. What is still to be read is released at once, whenever its client may ask for it.
    pub(in crate::server) fn give_way(&self) {
        let mut progress = self.lock();
        progress.has_given_way = true;
        progress.rest = Bytes::new();
        progress.in_flight = 0;
    }

    /// Returns the next piece of what is to be read, or `None` if there has to be more of it first.
    ///
    /// # Errors
    /// Returns [`GaveWay`] if the reader had to make room for others.
    pub(in crate::server) fn next(&self) -> Result<Option<Bytes>, GaveWay> {
        let mut progress = self.lock();
        if progress.has_given_way {
            return Err(GaveWay);
        }
        if let Some(since) = progress.since.take() {
            progress.took += since.elapsed();
        }
        progress.in_flight = 0;
        if progress.rest.is_empty() {
            return Ok(None);
        }
        let length = progress.rest.len().min(self.piece);
        // Copied: a part would keep all of it.
        let piece = Bytes::copy_from_slice(&progress.rest.split_to(length));
        progress.in_flight = length;
        progress.handed_over += length;
        progress.since = Some(Instant::now());
        Ok(Some(piece))
    }

    /// Adds what is to be read next.
    pub(in crate::server) fn add(&self, text: Vec<u8>) {
        let mut progress = self.lock();
        if !progress.has_given_way {
            progress.whole = text.len();
            progress.rest = text.into();
        }
    }

    /// Begins to count the time of the reader, before it asks for the first piece.
    pub(in crate::server) fn begin(&self) {
        self.lock().since = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
