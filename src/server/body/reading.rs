//! Reading of a body within its share of a budget, and at a minimum pace.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::super::client::standing::Standings;
use super::super::connections::pulse::Pulse;
use super::super::error::ApiError;
use super::budget::{Ask, Budget, NoRoom, Sender, Share};

/// Interval at which a sender's pace is checked, and the minimum number of bytes to arrive in it.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
pub(super) const SMALL_PACE: usize = 1 << 10;
pub(super) const LARGE_PACE: usize = 256 << 10;

/// Time that a body has left when it is evicted for being slow, and the longest pause in it then. What has arrived is
/// worth more than its room: in a flood it may be this server that is slow to read it.
const LAST: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// Body that is being read.
pub(in crate::server) struct Reading<'b> {
    pub(in crate::server) share: Share,
    pub(in crate::server) sender: Sender,
    /// Budget for the body if it turns out to be large.
    pub(in crate::server) large: &'b Arc<Budget>,
    /// Number of bytes for which there is room, and the most that it may come to.
    pub(in crate::server) room: usize,
    pub(in crate::server) most: usize,
    pub(in crate::server) limit: usize,
    pub(in crate::server) is_small: bool,
    pub(in crate::server) pulse: Option<Arc<Pulse>>,
    /// Time by which all of it has to be there.
    pub(in crate::server) ends: Instant,
    pub(in crate::server) bytes: Vec<u8>,
}

/// Reason for which a body was not read.
pub(in crate::server) enum Unread {
    /// Others came first, through no fault of the sender.
    NoRoom,
    /// The body came too slowly for others to wait for it.
    Slow,
    /// The body is invalid, too large or too late.
    Refused(ApiError),
}

impl From<NoRoom> for Unread {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl Reading<'_> {
    /// Reads the body to its end.
    pub(in crate::server) async fn all(
        &mut self,
        chunks: &mut BodyDataStream,
    ) -> Result<(), Unread> {
        let mut window = Window::begin();
        while let Some(chunk) = self.next(chunks, &mut window).await? {
            let length = self.bytes.len() + chunk.len();
            if length > self.limit {
                return Err(Unread::Refused(ApiError::body_too_large(self.limit)));
            }
            if length > self.room {
                if window.leaves_by.is_some() {
                    // All that there was room for has come after all.
                    self.share.stay();
                }
                self.grow(length).await?;
                window = Window::begin();
            }
            window.bytes += chunk.len();
            self.share.arrived(chunk.len());
            self.bytes.extend_from_slice(&chunk);
        }
        self.share.stay();
        self.share.shrink_to(self.bytes.len());
        Ok(())
    }

    /// Waits for room for at least `length` bytes: as much again as there was, so that it is in proportion to what has
    /// come.
    async fn grow(&mut self, length: usize) -> Result<(), Unread> {
        let room = length.max(2 * self.room).min(self.most);
        let asked = Instant::now();
        if self.is_small {
            let ask = Ask {
                now: room,
                all: self.most,
                weight: room,
                spent: self.share.spent(),
            };
            let elsewhere = self.large.begin(self.sender, ask);
            self.share = self.share.while_waiting(elsewhere).await?;
            self.share.arrived(self.bytes.len());
            self.is_small = false;
        } else {
            self.share.grow_to(room).await?;
        }
        // It is not the client that was late until now.
        self.ends += asked.elapsed();
        self.bytes.reserve_exact(room - self.bytes.len());
        self.room = room;
        Ok(())
    }

    async fn next(
        &self,
        chunks: &mut BodyDataStream,
        window: &mut Window,
    ) -> Result<Option<Bytes>, Unread> {
        let _waits = self.pulse.as_ref().map(Pulse::wait_for_client);
        let pace = if self.is_small {
            SMALL_PACE
        } else {
            LARGE_PACE
        };
        loop {
            let now = Instant::now();
            let ends = window.leaves_by.map(|by| by.min(now + LAST_PAUSE));
            if window.leaves_by.is_some_and(|by| by <= now) {
                return Err(Unread::Slow);
            }
            let looks = ends.unwrap_or(window.ends.min(self.ends));
            tokio::select! {
                biased;
                chunk = chunks.next() => return chunk.transpose().map_err(|_| {
                    let message = "The body ended early or could not be read.";
                    Unread::Refused(ApiError::body_parsing(message))
                }),
                is_slow = self.share.turned_out() => {
                    if !is_slow {
                        return Err(Unread::NoRoom);
                    }
                    window.leaves_by = Some(now + LAST);
                }
                () = tokio::time::sleep_until(looks) => {
                    if ends.is_some() {
                        return Err(Unread::Slow);
                    }
                    if window.bytes < pace || self.ends <= looks {
                        return Err(Unread::Refused(ApiError::body_timeout()));
                    }
                    *window = Window::begin();
                }
            }
        }
    }
}

/// Guard that counts an incomplete body against the standing of its client, unless told otherwise before it is dropped.
pub(in crate::server) struct Waste<'s> {
    pub(in crate::server) standings: &'s Standings,
    pub(in crate::server) client: Option<IpAddr>,
    /// `true` if the head of the request has identified the sender, who cannot be a forger then.
    pub(in crate::server) is_proved: bool,
}

impl Waste<'_> {
    /// Defuses the guard: nothing was wasted, or not by the client.
    pub(in crate::server) fn was_none(mut self) {
        self.client = None;
    }

    /// Records the client as slow only: there would have been time, had nobody else wanted the room.
    pub(in crate::server) fn was_slowness(mut self) {
        if let Some(client) = self.client.take() {
            self.standings.delayed(client);
        }
    }
}

impl Drop for Waste<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client
            && !self.is_proved
        {
            self.standings.distrust(client);
        }
    }
}

/// Bytes that a sender sent lately.
struct Window {
    ends: Instant,
    bytes: usize,
    /// Latest time at which the body has to make room, if it has to.
    leaves_by: Option<Instant>,
}

impl Window {
    fn begin() -> Self {
        Self {
            ends: Instant::now() + WINDOW,
            bytes: 0,
            leaves_by: None,
        }
    }
}
