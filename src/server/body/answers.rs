//! Room for answers to reports that were not read yet.
//!
//! An answer may be much larger than the report: a row of two bytes is answered with more than a hundred. Whoever sent
//! the report decides when its answer is read, so the answer has a room of its own, and the report gives back at once
//! what it held of the others. Who reads too slowly gives way to whoever comes. An answer that finds no room is not
//! kept waiting, since that would take as much: what was reported is done by then, and is answered when the report
//! comes again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use futures_util::stream;
use uuid::Uuid;

use super::super::client::reader::{GaveWay, Reader, evict_latest};
use crate::memory::ANSWERS;

/// Size of the pieces, in bytes, in which a large answer is written, and the time limit for reading all of it.
const PIECE: usize = 64 << 10;
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Time that a reader may take while others want its room, beyond what it read pays for.
const GRACE: Duration = Duration::from_secs(1);

/// Room for answers that are being read.
#[derive(Debug)]
pub(super) struct Answers {
    room: usize,
    readers: Mutex<Vec<Arc<Reader>>>,
}

/// Answer that is being read. Its room is released on drop.
struct Answer {
    answers: Arc<Answers>,
    reader: Arc<Reader>,
    ends: Instant,
}

impl Answers {
    pub(super) fn new() -> Arc<Self> {
        Self::with(ANSWERS)
    }

    fn with(room: usize) -> Arc<Self> {
        Arc::new(Self {
            room,
            readers: Mutex::default(),
        })
    }

    /// Returns an answer that keeps its room until it is read, or `None` if there is none: readers that are late give
    /// way to it. One that is larger than all of the room needs it for itself.
    pub(super) fn write(self: &Arc<Self>, whole: Vec<u8>) -> Option<Body> {
        if whole.len() <= PIECE {
            return Some(Body::from(whole));
        }
        let reader = Arc::new(Reader::new(Uuid::nil(), PIECE));
        if !self.admit(&reader, whole.len()) {
            return None;
        }
        let answer = Answer {
            answers: Arc::clone(self),
            reader,
            ends: Instant::now() + ANSWER_TIME,
        };
        answer.reader.add(whole);
        answer.reader.begin();
        Some(Body::from_stream(stream::try_unfold(
            answer,
            async |answer| {
                let piece = answer.next()?;
                Ok::<_, GaveWay>(piece.map(|piece| (piece, answer)))
            },
        )))
    }

    /// Gives a reader of `bytes` bytes its room, if there is enough, or would be without readers that are late.
    fn admit(&self, reader: &Arc<Reader>, bytes: usize) -> bool {
        let mut readers = self.lock();
        loop {
            let held: usize = readers.iter().map(|reader| reader.held()).sum();
            if readers.is_empty() || held + bytes <= self.room {
                readers.push(Arc::clone(reader));
                return true;
            }
            if !evict_latest(&mut readers, GRACE, |_| true) {
                return false;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn next(&self) -> Result<Option<axum::body::Bytes>, GaveWay> {
        if Instant::now() >= self.ends {
            return Err(GaveWay);
        }
        self.reader.next()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut readers = self.answers.lock();
        readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_not_read_gives_way_once_it_is_late() {
        let answers = Answers::with(3 * PIECE);
        let unread = answers.write(vec![b'a'; 2 * PIECE]).unwrap();
        assert!(answers.write(vec![b'b'; 2 * PIECE]).is_none());
        tokio::time::sleep(GRACE).await;
        let read = answers.write(vec![b'b'; 2 * PIECE]).unwrap();
        let bytes = axum::body::to_bytes(read, usize::MAX).await.unwrap();
        assert_eq!(bytes.len(), 2 * PIECE);
        assert!(unread.into_data_stream().next().await.unwrap().is_err());
        assert!(answers.lock().is_empty());
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_room_has_it_for_itself() {
        let answers = Answers::with(PIECE);
        let large = answers.write(vec![b'a'; 9 * PIECE]).unwrap();
        // A small one takes no room.
        assert!(answers.write(vec![b'a'; PIECE]).is_some());
        assert!(answers.write(vec![b'a'; 9 * PIECE]).is_none());
        let bytes = axum::body::to_bytes(large, usize::MAX).await.unwrap();
        assert_eq!(bytes.len(), 9 * PIECE);
        assert!(answers.write(vec![b'a'; 9 * PIECE]).is_some());
    }
}
