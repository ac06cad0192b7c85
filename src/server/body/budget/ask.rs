//! Vocabulary of a budget: who asks for how much room, and why there is none.

use std::net::IpAddr;
use std::time::Duration;

use crate::server::client::standing::Standing;

/// Room, in bytes, that a body gets before anything of it has come.
pub(in crate::server) const FIRST: usize = 64 << 10;

/// Reason for which no room was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum NoRoom {
    /// Others came first for too long.
    Late,
    /// Too many bodies are waiting.
    Crowded,
}

/// Client that sends a body, and its standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Sender {
    pub(in crate::server) client: IpAddr,
    pub(in crate::server) standing: Standing,
}

impl Sender {
    pub(super) fn is_proved(self) -> bool {
        self.standing == Standing::Known
    }

    /// Returns how many of these bytes of the sender count as those of a proved one.
    pub(super) fn proved(self, bytes: usize) -> usize {
        if self.is_proved() { bytes } else { 0 }
    }
}

/// Room that a body asks for.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Ask {
    /// Bytes to begin with.
    pub(in crate::server) now: usize,
    /// Most bytes that it may come to hold, these among them.
    pub(in crate::server) all: usize,
    /// Bytes for which it lets smaller ones pass.
    pub(in crate::server) weight: usize,
    /// Time that it took elsewhere.
    pub(in crate::server) spent: Spent,
}

/// Time that a body took until now.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::server) struct Spent {
    /// Time for which its client was waited for.
    pub(super) sending: Duration,
    /// Time for which it waited for room.
    pub(super) waiting: Duration,
}

impl Ask {
    /// Asks for room for a body of this size, the first part of it at once.
    pub(in crate::server) fn of_body(bytes: usize) -> Self {
        Self {
            now: bytes.min(FIRST),
            ..Self::whole(bytes)
        }
    }

    /// Asks for so many bytes at once.
    pub(super) fn whole(bytes: usize) -> Self {
        Self {
            now: bytes,
            all: bytes,
            weight: bytes,
            spent: Spent::default(),
        }
    }
}
