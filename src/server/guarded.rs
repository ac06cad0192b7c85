//! A connection whose client has to keep pace.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::places::Pulse;

/// How often it is looked at whether answers are read, and how much of them has to have been since.
const WINDOW: Duration = Duration::from_secs(20);
const PACE: usize = 8 << 10;

/// How much the operating system keeps of what is not read yet, in bytes. It decides when a client that does not
/// read is noticed.
const SEND_BUFFER: usize = 128 << 10;

/// How much of what a client still sends is thrown away after the last answer, and for how long. A client that is
/// cut off while it sends sees a broken connection instead of the answer (RFC 9112, section 9.6).
const LINGER: usize = 32 << 20;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// A TCP connection that ends with an error when its client takes nothing of what is written to it, and that is
/// closed as RFC 9112 has it.
#[derive(Debug)]
pub(super) struct Guarded {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    stalled: Option<Stalled>,
    lingering: Lingering,
    /// Whoever lingers, of all connections.
    lingerers: Arc<Semaphore>,
    at_end: bool,
}

/// A write that the client does not let through.
#[derive(Debug)]
struct Stalled {
    until: Pin<Box<Sleep>>,
    taken: usize,
}

#[derive(Debug)]
enum Lingering {
    NotYet,
    Now {
        until: Pin<Box<Sleep>>,
        left: usize,
        _place: OwnedSemaphorePermit,
    },
    Done,
}

impl Guarded {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>, lingerers: Arc<Semaphore>) -> Self {
        // Answers are small and complete: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        // Where that is not possible the client has more time.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
        Self {
            stream,
            pulse,
            stalled: None,
            lingering: Lingering::NotYet,
            lingerers,
            at_end: false,
        }
    }

    /// Notes how a write of `length` bytes went.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        written: Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        match written {
            Poll::Ready(Ok(taken)) => {
                self.pulse.moved(taken);
                if taken == length {
                    self.stalled = None;
                } else if let Some(stalled) = &mut self.stalled {
                    stalled.taken += taken;
                }
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_stalled(cx),
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            until: Box::pin(tokio::time::sleep(WINDOW)),
            taken: 0,
        });
        while stalled.until.as_mut().poll(cx).is_ready() {
            if stalled.taken < PACE {
                let error = Error::new(ErrorKind::TimedOut, "the client does not read its answers");
                return Poll::Ready(Err(error));
            }
            stalled.taken = 0;
            stalled.until.as_mut().reset(Instant::now() + WINDOW);
        }
        Poll::Pending
    }

    /// Throws away what still comes.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 8 << 10];
        while let Lingering::Now { until, left, .. } = &mut self.lingering {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len());
                    if *left == 0 {
                        self.lingering = Lingering::Done;
                    }
                }
                Poll::Ready(_) => self.lingering = Lingering::Done,
                Poll::Pending => {
                    ready!(until.as_mut().poll(cx));
                    self.lingering = Lingering::Done;
                }
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.at_end |= read == 0 && buffer.remaining() > 0;
        self.pulse.moved(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, length, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if matches!(self.lingering, Lingering::NotYet) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            let place = Arc::clone(&self.lingerers).try_acquire_owned().ok();
            self.lingering = match place.filter(|_| !self.at_end) {
                Some(place) => Lingering::Now {
                    until: Box::pin(tokio::time::sleep(LINGER_TIME)),
                    left: LINGER,
                    _place: place,
                },
                None => Lingering::Done,
            };
        }
        ready!(self.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}
