//! How many bytes of bodies are under way, all connections together.
//!
//! A body takes its [`Share`] as its bytes arrive, not when they are announced: whoever announces much and sends
//! nothing holds nothing. When the budget is used up, bodies wait, which costs nothing but their connection, since
//! what is not read is not sent either. What becomes free goes first to the client that holds the least, and a
//! body that has waited for a while turns out the largest one of the client that holds the most. So a sender
//! of much waits for itself, and a sender of little for nobody for long.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

/// How long a body waits before larger ones have to make room.
const GRACE: Duration = Duration::from_secs(1);

/// How long a body waits in all. Senders of webhooks and reports wait 10 seconds for their answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many bodies wait at a time.
const MOST_WAITING: usize = 256;

/// There was no room in time, or the body had to make room for smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// A number of bytes that bodies share.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    grace: Duration,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    shares: HashMap<u64, Held>,
    clients: HashMap<IpAddr, usize>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Held {
    client: IpAddr,
    bytes: usize,
    /// Tells the body that it has to make room. `None`: it does not have to any more.
    turn_out: Option<Arc<Notify>>,
}

#[derive(Debug)]
struct Waiting {
    share: u64,
    bytes: usize,
    go: oneshot::Sender<()>,
}

/// What one body holds of a [`Budget`]. Given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    id: u64,
    turned_out: Arc<Notify>,
}

impl Budget {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Self::with(total, GRACE, PATIENCE)
    }

    fn with(total: usize, grace: Duration, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            total,
            grace,
            patience,
            state: Mutex::default(),
        })
    }

    /// A share of nothing yet.
    pub(super) fn share(self: &Arc<Self>, client: IpAddr) -> Share {
        let turned_out = Arc::new(Notify::new());
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let held = Held {
            client,
            bytes: 0,
            turn_out: Some(Arc::clone(&turned_out)),
        };
        state.shares.insert(id, held);
        Share {
            budget: Arc::clone(self),
            id,
            turned_out,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes more, waiting for it if need be.
    ///
    /// # Errors
    /// [`NoRoom`]; the share is as it was.
    pub(super) async fn grow(&self, bytes: usize) -> Result<(), NoRoom> {
        let (go, mut granted) = oneshot::channel();
        {
            let mut state = self.budget.lock();
            let share = self.id;
            state.waiting.push(Waiting { share, bytes, go });
            state.grant(self.budget.total);
            state.thin_out();
        }
        let began = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                granted = &mut granted => return granted.map_err(|_| NoRoom),
                () = self.turned_out() => break,
                () = tokio::time::sleep(self.budget.grace) => self.budget.lock().make_room_for(self.id, bytes),
            }
            if began.elapsed() >= self.budget.patience {
                break;
            }
        }
        self.budget.lock().forget_waiting(self.id);
        Err(NoRoom)
    }

    /// Ends when smaller bodies need the room. Does not end after [`keep`](Self::keep).
    pub(super) async fn turned_out(&self) {
        self.turned_out.notified().await;
    }

    /// From here on the share is not taken away: the body is whole and genuine.
    pub(super) fn keep(&self) {
        if let Some(held) = self.budget.lock().shares.get_mut(&self.id) {
            held.turn_out = None;
        }
    }

    /// Gives back what exceeds `bytes`.
    pub(super) fn shrink_to(&self, bytes: usize) {
        let mut state = self.budget.lock();
        state.release(self.id, bytes);
        state.grant(self.budget.total);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.forget_waiting(self.id);
        state.release(self.id, 0);
        state.shares.remove(&self.id);
        state.grant(self.budget.total);
    }
}

impl State {
    /// How much the share's client holds in all, and the share itself.
    fn weight(&self, share: u64) -> (usize, usize) {
        let Some(held) = self.shares.get(&share) else {
            return (0, 0);
        };
        let client = self.clients.get(&held.client).copied().unwrap_or(0);
        (client, held.bytes)
    }

    /// Lets those go on for whom there is room, whoever holds the least first.
    fn grant(&mut self, total: usize) {
        while let Some((at, bytes)) = self.lightest() {
            if self.used + bytes > total {
                return;
            }
            let Waiting { share, bytes, go } = self.waiting.swap_remove(at);
            let Some(held) = self.shares.get_mut(&share) else {
                continue;
            };
            held.bytes += bytes;
            *self.clients.entry(held.client).or_default() += bytes;
            self.used += bytes;
            // Should nobody listen any more, the share is about to be dropped, and these bytes with it.
            let _ = go.send(());
        }
    }

    fn lightest(&self) -> Option<(usize, usize)> {
        let waiting = self.waiting.iter().enumerate();
        let lightest =
            waiting.min_by_key(|(_, waiting)| (self.weight(waiting.share), waiting.share));
        lightest.map(|(at, waiting)| (at, waiting.bytes))
    }

    /// Refuses whoever holds the most when too many wait.
    fn thin_out(&mut self) {
        if self.waiting.len() <= MOST_WAITING {
            return;
        }
        let waiting = self.waiting.iter().enumerate();
        let heaviest =
            waiting.max_by_key(|(_, waiting)| (self.weight(waiting.share), waiting.share));
        if let Some((at, _)) = heaviest {
            self.waiting.swap_remove(at);
        }
    }

    /// Turns out the largest body of the client that holds the most, if that is more than this share's.
    fn make_room_for(&mut self, share: u64, bytes: usize) {
        let Some(mine) = self.shares.get(&share) else {
            return;
        };
        let mine = (mine.client, self.weight(share));
        let removable = self
            .shares
            .iter()
            .filter(|(id, held)| held.turn_out.is_some() && **id != share);
        let heaviest = removable.max_by_key(|(id, _)| self.weight(**id));
        let Some((id, held)) = heaviest else {
            return;
        };
        let theirs = self.weight(*id);
        let is_heavier = if held.client == mine.0 {
            theirs.1 > mine.1.1 + bytes
        } else {
            theirs.0 > mine.1.0 + bytes
        };
        let id = *id;
        if is_heavier
            && let Some(turn_out) = self
                .shares
                .get_mut(&id)
                .and_then(|held| held.turn_out.take())
        {
            turn_out.notify_one();
        }
    }

    fn release(&mut self, share: u64, keep: usize) {
        let Some(held) = self.shares.get_mut(&share) else {
            return;
        };
        let freed = held.bytes.saturating_sub(keep);
        held.bytes -= freed;
        self.used -= freed;
        if let Some(client) = self.clients.get_mut(&held.client) {
            *client -= freed;
            if *client == 0 {
                self.clients.remove(&held.client);
            }
        }
    }

    fn forget_waiting(&mut self, share: u64) {
        self.waiting.retain(|waiting| waiting.share != share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget of 100 bytes that waits for moments only.
    fn budget() -> Arc<Budget> {
        Budget::with(100, Duration::from_millis(20), Duration::from_millis(100))
    }

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn used(budget: &Budget) -> usize {
        let state = budget.lock();
        let shares: usize = state.shares.values().map(|held| held.bytes).sum();
        let clients: usize = state.clients.values().sum();
        assert!(state.used == shares && state.used == clients, "{state:?}");
        state.used
    }

    #[tokio::test]
    async fn what_is_taken_is_given_back() {
        let budget = budget();
        let (a, b) = (budget.share(client(1)), budget.share(client(2)));
        a.grow(60).await.unwrap();
        b.grow(40).await.unwrap();
        assert_eq!(used(&budget), 100);
        a.shrink_to(10);
        assert_eq!(used(&budget), 50);
        drop(a);
        assert_eq!(used(&budget), 40);
        drop(b);
        assert_eq!(used(&budget), 0);
        assert!(budget.lock().shares.is_empty() && budget.lock().clients.is_empty());
    }

    #[tokio::test]
    async fn whoever_asks_for_more_than_there_ever_is_waits_for_a_while_only() {
        let budget = budget();
        let share = budget.share(client(1));
        assert_eq!(share.grow(101).await, Err(NoRoom));
        assert!(budget.lock().waiting.is_empty());
        share.grow(100).await.unwrap();
    }

    #[tokio::test]
    async fn a_small_body_waits_for_no_large_one_for_long() {
        let budget = budget();
        // One client with many bodies, one with one large one: both could be in the way.
        let greedy: Vec<_> = (0..10).map(|_| budget.share(client(1))).collect();
        for share in &greedy {
            share.grow(10).await.unwrap();
        }
        let small = budget.share(client(2));
        let turned_out = async {
            futures_util::future::select_all(greedy.iter().map(|s| Box::pin(s.turned_out())))
                .await
                .1
        };
        let room = async {
            let at = turned_out.await;
            greedy[at].shrink_to(0);
        };
        let (grown, ()) = tokio::join!(small.grow(8), room);
        assert_eq!(grown, Ok(()));
    }

    #[tokio::test]
    async fn nobody_is_turned_out_for_somebody_who_holds_more() {
        let budget = budget();
        let (large, small) = (budget.share(client(1)), budget.share(client(2)));
        large.grow(60).await.unwrap();
        small.grow(40).await.unwrap();
        let refused = tokio::select! {
            refused = large.grow(10) => refused,
            () = small.turned_out() => panic!("the smaller one had to go"),
        };
        assert_eq!(refused, Err(NoRoom));
    }

    #[tokio::test]
    async fn a_whole_body_is_not_turned_out() {
        let budget = budget();
        let (large, small) = (budget.share(client(1)), budget.share(client(2)));
        large.grow(100).await.unwrap();
        large.keep();
        let refused = tokio::select! {
            refused = small.grow(10) => refused,
            () = large.turned_out() => panic!("a whole body had to go"),
        };
        assert_eq!(refused, Err(NoRoom));
    }

    #[tokio::test]
    async fn what_becomes_free_goes_to_whoever_holds_the_least() {
        let hour = Duration::from_hours(1);
        let budget = Budget::with(100, hour, hour);
        let (large, small) = (budget.share(client(1)), budget.share(client(2)));
        let rest = budget.share(client(3));
        large.grow(50).await.unwrap();
        small.grow(5).await.unwrap();
        rest.grow(45).await.unwrap();
        rest.keep();
        let order = Mutex::new(Vec::new());
        let first = async {
            large.grow(10).await.unwrap();
            order.lock().unwrap().push("large");
        };
        let second = async {
            small.grow(10).await.unwrap();
            order.lock().unwrap().push("small");
        };
        let free = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            rest.shrink_to(35);
            tokio::time::sleep(Duration::from_millis(10)).await;
            rest.shrink_to(25);
        };
        tokio::join!(first, second, free);
        assert_eq!(*order.lock().unwrap(), ["small", "large"]);
    }

    #[tokio::test]
    async fn too_many_do_not_even_wait() {
        let budget = Budget::with(100, GRACE, Duration::from_hours(1));
        let holder = budget.share(client(1));
        holder.grow(100).await.unwrap();
        holder.keep();
        let shares: Vec<_> = (0..=MOST_WAITING)
            .map(|_| budget.share(client(2)))
            .collect();
        let grown = shares.iter().map(|share| Box::pin(share.grow(1)));
        let (refused, ..) = futures_util::future::select_all(grown).await;
        assert_eq!(refused, Err(NoRoom));
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let budget = budget();
        let (holder, waiter) = (budget.share(client(1)), budget.share(client(2)));
        holder.grow(100).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(5), waiter.grow(10)).await;
        assert!(waiting.is_err());
        drop(waiter);
        drop(holder);
        assert_eq!(used(&budget), 0);
        assert!(budget.lock().waiting.is_empty());
    }
}
