//! Bodies that are worked on while they come. All that is kept of one is a window, however large it is and however long
//! the work takes: a client that is faster than this server waits with what it has not sent yet.

use std::io::{BufRead, Error, ErrorKind, Read, Result as IoResult};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::connections::pulse::Pulse;
use super::super::error::{ApiError, ApiResult, ErrorCode};
use super::reading::{LARGE_PACE, SMALL_PACE, WINDOW};
use super::{MAX_JSON, RETRY_AFTER, Terms};

/// Maximum number of pieces, as the connection hands them over, that wait to be worked on.
const PIECES: usize = 8;

/// Time that a client may take while others want its place, and the number of bytes per second that it has to send
/// beyond that.
const GRACE: Duration = Duration::from_secs(1);
const RATE: usize = 1 << 20;

/// Interval at which the pace is checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// End of a body at which its client is read from.
pub(in crate::server) struct Feed {
    chunks: BodyDataStream,
    pieces: mpsc::Sender<Option<Bytes>>,
    pulse: Option<Arc<Pulse>>,
    terms: Terms,
    came: usize,
    /// Time for which the client was waited for.
    took: Duration,
}

/// End of a body at which it is worked on, on a thread that may block.
///
/// It ends without an error only if the whole body has come.
pub(in crate::server) struct Inflow {
    pieces: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    is_whole: bool,
    abandoned: CancellationToken,
}

/// Returns both ends of a body. Nothing more is worked on once `abandoned` is canceled.
pub(in crate::server) fn inflow(
    parts: &Parts,
    body: Body,
    terms: Terms,
    abandoned: CancellationToken,
) -> (Feed, Inflow) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let feed = Feed {
        chunks: body.into_data_stream(),
        pieces: sender,
        pulse: parts.extensions.get().cloned(),
        terms,
        came: 0,
        took: Duration::ZERO,
    };
    let inflow = Inflow {
        pieces,
        piece: Bytes::new(),
        is_whole: false,
        abandoned,
    };
    (feed, inflow)
}

impl Feed {
    /// Hands the body over as it comes, until its end. What nobody works on is read all the same, so that the client
    /// gets to its answer.
    ///
    /// # Errors
    /// Returns 413 for a body that exceeds the limit; 408 for a client that takes too long or falls below the minimum
    /// pace; 503 for one that is too slow while its place `is_wanted`; 400 if the body ends early.
    pub(in crate::server) async fn run(mut self, is_wanted: impl Fn() -> bool) -> ApiResult<()> {
        while let Some(piece) = self.next(&is_wanted).await? {
            self.came += piece.len();
            if self.came > self.terms.limit {
                return Err(ApiError::body_too_large(self.terms.limit));
            }
            let _ = self.pieces.send(Some(piece)).await;
        }
        let _ = self.pieces.send(None).await;
        Ok(())
    }

    async fn next(&mut self, is_wanted: &impl Fn() -> bool) -> ApiResult<Option<Bytes>> {
        let _waits = self.pulse.as_ref().map(Pulse::wait_for_client);
        let before = self.took;
        let began = Instant::now();
        loop {
            tokio::select! {
                biased;
                piece = self.chunks.next() => {
                    self.took = before + began.elapsed();
                    return piece.transpose().map_err(|_| {
                        ApiError::body_parsing("The body ended early or could not be read.")
                    });
                }
                () = tokio::time::sleep(LOOK_EVERY) => {
                    self.took = before + began.elapsed();
                    self.keeps_pace(is_wanted)?;
                }
            }
        }
    }

    fn keeps_pace(&self, is_wanted: &impl Fn() -> bool) -> ApiResult<()> {
        let pace = if self.came <= MAX_JSON {
            SMALL_PACE
        } else {
            LARGE_PACE
        };
        let windows = u32::try_from(1 + self.came / pace).unwrap_or(u32::MAX);
        if self.took > WINDOW.saturating_mul(windows).min(self.terms.patience) {
            return Err(too_slow());
        }
        let paid = Duration::from_millis((self.came / (RATE / 1000)) as u64);
        if self.took > GRACE + paid && is_wanted() {
            return Err(gave_way());
        }
        Ok(())
    }
}

fn too_slow() -> ApiError {
    let message = "The body took too long to arrive. A part of what had come may be stored; send all of it again.";
    ApiError::new(ErrorCode::RequestTimeout, message)
}

fn gave_way() -> ApiError {
    let message = "The body came too slowly for others to wait. A part of what had come may be stored; send all of it again later.";
    ApiError::unavailable(message, RETRY_AFTER).of_many()
}

impl Read for Inflow {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Inflow {
    fn fill_buf(&mut self) -> IoResult<&[u8]> {
        let ended_early = || Err(Error::from(ErrorKind::ConnectionAborted));
        while self.piece.is_empty() && !self.is_whole {
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.is_whole = true,
                None => return ended_early(),
            }
        }
        if self.abandoned.is_cancelled() {
            return ended_early();
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, bytes: usize) {
        let _ = self.piece.split_to(bytes.min(self.piece.len()));
    }
}

#[cfg(test)]
mod tests;
