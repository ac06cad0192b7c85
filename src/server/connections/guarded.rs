//! Connection whose client has to keep pace.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::pulse::Pulse;

/// Interval at which it is checked that answers are read, and the minimum number of bytes read in one.
const WINDOW: Duration = Duration::from_secs(20);
const PACE: usize = 8 << 10;

/// Size of the operating system's send buffer, in bytes. It determines how soon a client that does not read is noticed.
const SEND_BUFFER: usize = 128 << 10;

/// Maximum number of bytes that are discarded after the last answer while the client goes on sending, and the time
/// limit for it. A client that is cut off while it sends sees a broken connection instead of the answer (RFC 9112,
/// section 9.6).
const LINGER: usize = 32 << 20;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// TCP connection that fails when its client does not read what is written to it, and that is closed as RFC 9112,
/// section 9.6 demands.
#[derive(Debug)]
pub(in crate::server) struct Guarded {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    stalled: Option<Stalled>,
    window: Duration,
    lingering: Lingering,
    /// Permits to linger, shared by all connections.
    lingerers: Arc<Semaphore>,
    at_end: bool,
}

/// Write that is blocked by the client.
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
    pub(in crate::server) fn new(
        stream: TcpStream,
        pulse: Arc<Pulse>,
        lingerers: Arc<Semaphore>,
    ) -> Self {
        // Answers are small and complete: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        // If this is not possible, the client merely has more time.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
        Self {
            stream,
            pulse,
            stalled: None,
            window: WINDOW,
            lingering: Lingering::NotYet,
            lingerers,
            at_end: false,
        }
    }

    /// Records the outcome of a write of `length` bytes.
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
                    self.pulse.unread(false);
                    self.stalled = None;
                } else if let Some(stalled) = &mut self.stalled {
                    stalled.taken += taken;
                }
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.pulse.unread(true);
                self.poll_stalled(cx)
            }
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        let window = self.window;
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            until: Box::pin(tokio::time::sleep(window)),
            taken: 0,
        });
        while stalled.until.as_mut().poll(cx).is_ready() {
            if stalled.taken < PACE {
                let error = Error::new(ErrorKind::TimedOut, "the client does not read its answers");
                return Poll::Ready(Err(error));
            }
            stalled.taken = 0;
            stalled.until.as_mut().reset(Instant::now() + window);
        }
        Poll::Pending
    }

    /// Discards what still arrives.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::connections::places::{Connections, Places};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Returns a guarded connection with this window, and its client.
    async fn pair(window: Duration) -> (Guarded, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, peer) = server.unwrap();
        let place = Places::new(Connections::default()).admit(peer.ip());
        let lingerers = Arc::new(Semaphore::new(1));
        let mut guarded = Guarded::new(stream, Arc::clone(&place.pulse), lingerers);
        guarded.window = window;
        (guarded, client.unwrap())
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up() {
        let (mut guarded, client) = pair(Duration::from_millis(200)).await;
        let written = guarded.write_all(&vec![0; 16 << 20]).await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_reads_a_byte_now_and_then_is_given_up_too() {
        let (mut guarded, mut client) = pair(Duration::from_millis(300)).await;
        let reading = async {
            while client.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let whole = vec![0; 16 << 20];
        let written = tokio::select! {
            written = guarded.write_all(&whole) => written,
            () = reading => panic!("the connection ended otherwise"),
        };
        assert_eq!(written.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_slow_client_that_goes_on_gets_everything() {
        const WHOLE: usize = 6 << 20;
        let (mut guarded, mut client) = pair(Duration::from_secs(1)).await;
        let writing = async {
            guarded.write_all(&vec![0; WHOLE]).await.unwrap();
            guarded.shutdown().await.unwrap();
        };
        let reading = async move {
            let mut buffer = vec![0; 128 << 10];
            let mut read = 0;
            loop {
                match client.read(&mut buffer).await.unwrap() {
                    0 => return read,
                    some => read += some,
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert_eq!(read, WHOLE);
    }

    #[tokio::test]
    async fn a_client_that_goes_on_sending_still_gets_the_answer() {
        let (mut guarded, mut client) = pair(Duration::from_secs(1)).await;
        let serving = async {
            guarded.write_all(b"no").await.unwrap();
            guarded.shutdown().await.unwrap();
            drop(guarded);
        };
        let sending = async {
            client.write_all(&vec![0; 8 << 20]).await.unwrap();
            let mut answer = [0; 2];
            client.read_exact(&mut answer).await.unwrap();
            drop(client);
            answer
        };
        let (answer, ()) = tokio::join!(sending, serving);
        assert_eq!(&answer, b"no");
    }
}
