//! State of a budget: the bodies that hold room, those that wait for it, and their order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::claims::{Claims, Passing};
use super::held::Held;
use super::order::{Line, turn};
use super::{Ask, Budget, MOST_WAITING, Reading, Sender};
use crate::server::client::crowds::Crowds;
use crate::server::client::standing::range;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) used: usize,
    /// Bytes of these that proved senders hold.
    pub(super) of_proved: usize,
    next: u64,
    pub(super) held: HashMap<u64, Held>,
    pub(super) holders: Crowds,
    pub(super) waiting: Vec<Waiting>,
    pub(super) waiters: Crowds,
}

/// Body that waits for room: for all that it needs, or for more than it has.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: u64,
    /// Time of the request for room, and the time from which the turn is computed.
    pub(super) asked: Instant,
    pub(super) since: Instant,
    /// Time of the turn. Cached, since there may be very many to choose from.
    pub(super) turn: Instant,
    pub(super) sender: Sender,
    range: IpAddr,
    pub(super) bytes: usize,
    /// Bytes that it will have to get in all, at most, these among them.
    pub(super) missing: usize,
    /// Bytes for which it lets smaller ones pass.
    pub(super) weight: usize,
    /// Time for which its client was waited for elsewhere.
    pub(super) took: Duration,
    pub(super) is_begun: bool,
    pub(super) reading: Arc<Reading>,
    go: oneshot::Sender<()>,
}

impl State {
    /// Enqueues a new body, unless there is room for it at once, and returns its identifier.
    pub(super) fn ask(
        &mut self,
        budget: &Budget,
        sender: Sender,
        ask: Ask,
        reading: Arc<Reading>,
        go: oneshot::Sender<()>,
    ) -> u64 {
        let id = self.next;
        self.next += 1;
        let now = Instant::now();
        let waiting = Waiting {
            id,
            asked: now,
            since: now,
            turn: now,
            sender,
            range: range(sender.client),
            bytes: ask.now.min(budget.total),
            missing: ask.all.min(budget.total),
            weight: ask.weight.min(budget.total),
            took: ask.spent.sending,
            is_begun: false,
            reading,
            go,
        };
        self.wait(budget, waiting);
        id
    }

    /// Enqueues a body that is being read and needs `bytes` bytes in total.
    pub(super) fn ask_for_more(
        &mut self,
        budget: &Budget,
        id: u64,
        bytes: usize,
        go: oneshot::Sender<()>,
    ) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let Some(reading) = held.reading.clone() else {
            return;
        };
        held.pause();
        let missing = held.missing();
        let waiting = Waiting {
            id,
            asked: Instant::now(),
            since: held.began,
            turn: held.began,
            sender: held.sender,
            range: range(held.sender.client),
            bytes: bytes.saturating_sub(held.bytes).min(missing),
            missing,
            weight: 0,
            took: held.took(),
            is_begun: true,
            reading,
            go,
        };
        self.wait(budget, waiting);
    }

    /// Enqueues a body, grants room to those whose turn it is, and refuses one body if too many wait.
    fn wait(&mut self, budget: &Budget, mut waiting: Waiting) {
        let id = waiting.id;
        waiting.turn = turn(&self.holders, &waiting, budget);
        self.waiters.add(waiting.sender.client, 0);
        self.waiting.push(waiting);
        let first = self.grant(budget);
        if self.waiting.len() > MOST_WAITING {
            let last = self.last();
            last.map(|last| self.dismiss(last));
        } else if first == Some(id) {
            self.make_room(budget);
        }
        budget.changed.notify_one();
    }

    /// Recomputes the turns of all waiting bodies that the bodies of this client count against.
    fn reckon(&mut self, client: IpAddr, budget: &Budget) {
        let range = range(client);
        for waiting in &mut self.waiting {
            if waiting.range == range {
                waiting.turn = turn(&self.holders, waiting, budget);
            }
        }
    }

    /// Grants room in turn for as long as there is enough. Returns the first body that has to go on waiting.
    pub(super) fn grant(&mut self, budget: &Budget) -> Option<u64> {
        loop {
            match self.next_to_go(budget) {
                Ok(at) => self.admit(at, budget),
                Err(first) => return first,
            }
        }
    }

    /// Returns the index of the next body that can get its room, or else the first one that waits.
    fn next_to_go(&self, budget: &Budget) -> Result<usize, Option<u64>> {
        if self.waiting.is_empty() {
            return Err(None);
        }
        let free = budget.total.saturating_sub(self.used);
        let claims = Claims::of(free, self.held.iter());
        let mut line = Line::of(&self.waiting);
        let mut first = None;
        let mut passing = Passing::default();
        while let Some(next) = line.next(self.of_proved, budget) {
            let waiting = next.waiting;
            if passing.lack(waiting, &claims) == Some(0) {
                return Ok(next.at);
            }
            first.get_or_insert(waiting.id);
            passing.waits(waiting);
            line.is_held_up_by(waiting, &claims);
        }
        Err(first)
    }

    fn admit(&mut self, at: usize, budget: &Budget) {
        let next = self.dismiss(at);
        self.used += next.bytes;
        self.of_proved += next.sender.proved(next.bytes);
        if let Some(held) = self.held.get_mut(&next.id) {
            let before = held.bytes;
            held.grow(next.bytes);
            self.holders
                .resize(next.sender.client, before, before + next.bytes);
        } else {
            self.holders.add(next.sender.client, next.bytes);
            self.held.insert(next.id, Held::of(&next));
        }
        self.reckon(next.sender.client, budget);
        // If nobody listens anymore, the share is about to be dropped, and these bytes with it.
        let _ = next.go.send(());
        budget.changed.notify_one();
    }

    /// Removes a body from the queue.
    fn dismiss(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.swap_remove(at);
        self.waiters.remove(waiting.sender.client, 0);
        waiting
    }

    /// Releases what a body holds beyond `keep` bytes.
    pub(super) fn release(&mut self, id: u64, keep: usize, budget: &Budget) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let client = held.sender.client;
        let before = held.shrink(keep);
        let after = held.bytes;
        self.used -= before - after;
        self.of_proved -= held.sender.proved(before - after);
        self.holders.resize(client, before, after);
        self.reckon(client, budget);
    }

    /// Removes a body, whether it holds room, waits, or both.
    pub(super) fn remove(&mut self, id: u64, budget: &Budget) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) {
            self.dismiss(at);
        }
        if let Some(held) = self.held.remove(&id) {
            let client = held.sender.client;
            self.used -= held.bytes;
            self.of_proved -= held.sender.proved(held.bytes);
            self.holders.remove(client, held.bytes);
            self.reckon(client, budget);
        }
    }
}
