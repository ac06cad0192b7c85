//! State of a budget: the bodies that hold room, those that wait for it, and their order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::held::Held;
use super::order::turn;
use super::{Budget, MOST_WAITING, Reading, Sender};
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
        bytes: usize,
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
            bytes: bytes.min(budget.total),
            is_begun: false,
            reading,
            go,
        };
        self.wait(budget, waiting);
        id
    }

    /// Enqueues a body that is being read and needs more room.
    pub(super) fn ask_for_more(
        &mut self,
        budget: &Budget,
        id: u64,
        bytes: usize,
        go: oneshot::Sender<()>,
    ) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let Some(reading) = held.reading.clone() else {
            return;
        };
        let waiting = Waiting {
            id,
            asked: Instant::now(),
            since: held.began,
            turn: held.began,
            sender: held.sender,
            range: range(held.sender.client),
            bytes: bytes.min(budget.total).saturating_sub(held.bytes),
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
        } else if first.is_some_and(|first| self.waiting[first].id == id) {
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

    /// Grants room in turn for as long as there is enough. Returns the index of the first body that has to go on
    /// waiting.
    pub(super) fn grant(&mut self, budget: &Budget) -> Option<usize> {
        loop {
            let at = self.first(budget)?;
            if self.used + self.waiting[at].bytes > budget.total {
                return Some(at);
            }
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
            next.reading.set_waiting(false);
            // If nobody listens anymore, the share is about to be dropped, and these bytes with it.
            let _ = next.go.send(());
            budget.changed.notify_one();
        }
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
        let after = held.bytes.min(keep);
        let before = std::mem::replace(&mut held.bytes, after);
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
