//! State of a budget: the bodies that hold room, and those that wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::ask::{Ask, Sender};
use super::claims::{Claims, Passing};
use super::held::Held;
use super::limits::{Limits, MOST_WAITING};
use super::order::{AllWaiting, Line, last};
use super::progress::Progress;
use super::waiting::{Waiting, Want};
use crate::server::client::crowds::Crowds;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) used: usize,
    /// Bytes of these that proved senders hold.
    pub(super) of_proved: usize,
    next: u64,
    /// First body that had to go on waiting when room was granted last.
    first: Option<u64>,
    pub(super) held: HashMap<u64, Held>,
    pub(super) holders: Crowds,
    pub(super) waiting: AllWaiting,
    waiters: Crowds,
}

impl State {
    /// Enqueues a new body and returns its identifier. Refuses one that waits if too many do.
    pub(super) fn ask(
        &mut self,
        limits: &Limits,
        sender: Sender,
        ask: Ask,
        progress: Arc<Progress>,
        go: oneshot::Sender<()>,
    ) -> u64 {
        let id = self.next;
        self.next += 1;
        let now = Instant::now();
        self.wait(Waiting {
            want: Want {
                id,
                bytes: ask.now.min(limits.total),
                missing: ask.all.min(limits.total),
                is_begun: false,
            },
            asked: now,
            since: now,
            sender,
            weight: ask.weight.min(limits.total),
            took: ask.spent.sending,
            progress,
            go,
        });
        id
    }

    /// Enqueues a body that is being read and needs `bytes` bytes in total.
    pub(super) fn ask_for_more(&mut self, id: u64, bytes: usize, go: oneshot::Sender<()>) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let Some(progress) = held.progress.clone() else {
            return;
        };
        let missing = held.missing();
        let wanted = bytes.saturating_sub(held.bytes).min(missing);
        held.pause();
        let waiting = Waiting {
            want: Want {
                id,
                bytes: wanted,
                missing,
                is_begun: true,
            },
            asked: Instant::now(),
            since: held.began,
            sender: held.sender,
            weight: 0,
            took: held.took(),
            progress,
            go,
        };
        self.wait(waiting);
    }

    fn wait(&mut self, waiting: Waiting) {
        self.waiters.add(waiting.sender.client, 0);
        self.waiting.insert(waiting.want.id, waiting);
    }

    /// Refuses one body if too many wait.
    pub(super) fn thin_out(&mut self) {
        if self.waiting.len() > MOST_WAITING
            && let Some(last) = last(&self.waiting, &self.waiters)
        {
            self.dismiss(last);
        }
    }

    /// Grants room in turn for as long as there is enough. Returns whether the first body that has to go on waiting is
    /// another one than before.
    pub(super) fn grant(&mut self, limits: &Limits) -> bool {
        let first = self.grant_in_turn(limits);
        let before = std::mem::replace(&mut self.first, first);
        first.is_some() && first != before
    }

    fn grant_in_turn(&mut self, limits: &Limits) -> Option<u64> {
        if self.waiting.is_empty() {
            return None;
        }
        let mut first = None;
        let free = limits.total.saturating_sub(self.used);
        let mut claims = Claims::of(free, limits.for_beginnings(), self.held.iter());
        let mut line = Line::of(&self.waiting, &self.holders, limits);
        let mut passing = Passing::default();
        while let Some(next) = line.next(self.of_proved, &self.waiting, &self.holders, limits) {
            let (want, turn) = (next.waiting.want, next.turn);
            if passing.lack(want, &claims) == Some(0) {
                claims.grant(want);
                self.admit(want.id, turn);
                line.was_granted();
            } else {
                first.get_or_insert(want.id);
                passing.waits(want);
                if want.bytes > claims.free {
                    line.hold_up(&self.waiting);
                }
            }
        }
        first
    }

    fn admit(&mut self, id: u64, turn: Instant) {
        let Some(next) = self.dismiss(id) else {
            return;
        };
        let (client, bytes) = (next.sender.client, next.want.bytes);
        self.used += bytes;
        self.of_proved += next.sender.proved(bytes);
        if let Some(held) = self.held.get_mut(&id) {
            let before = held.bytes;
            held.grow(bytes);
            self.holders.resize(client, before, before + bytes);
        } else {
            self.holders.add(client, bytes);
            self.held.insert(id, Held::of(&next, turn));
        }
        // If nobody listens anymore, the share is about to be dropped, and these bytes with it.
        let _ = next.go.send(());
    }

    /// Removes a body from the queue.
    fn dismiss(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.waiters.remove(waiting.sender.client, 0);
        Some(waiting)
    }

    /// Returns the time for which the client of a body was waited for.
    pub(super) fn took(&self, id: u64) -> Duration {
        self.held.get(&id).map_or(Duration::ZERO, Held::took)
    }

    /// Releases what a body holds beyond `keep` bytes.
    pub(super) fn release(&mut self, id: u64, keep: usize) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let before = held.shrink(keep);
        let after = held.bytes;
        self.used -= before - after;
        self.of_proved -= held.sender.proved(before - after);
        self.holders.resize(held.sender.client, before, after);
    }

    /// Removes a body, whether it holds room, waits, or both.
    pub(super) fn remove(&mut self, id: u64) {
        self.dismiss(id);
        if let Some(held) = self.held.remove(&id) {
            self.used -= held.bytes;
            self.of_proved -= held.sender.proved(held.bytes);
            self.holders.remove(held.sender.client, held.bytes);
        }
    }
}
