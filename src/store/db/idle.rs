//! Idle connections, and the tasks that wait for one.
//!
//! A task that has a place and finds no idle connection opens one, and meanwhile waits for another one to be returned:
//! a server may have no room for another connection, or be slow to accept it, while the existing ones work.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Pause before one of the waiting tasks retries to connect to a server that had no room for another connection.
const PAUSE: Duration = Duration::from_millis(250);

/// Idle connections `C`, and the tasks that wait for one, which is handed to them as an `H`.
#[derive(Debug)]
pub(in crate::store) struct Shelf<C, H>(Mutex<Inner<C, H>>);

#[derive(Debug)]
struct Inner<C, H> {
    /// Empty while a task is waiting.
    idle: Vec<C>,
    /// Each has a place, which limits their number.
    waiting: VecDeque<oneshot::Sender<H>>,
    /// Time at which the server refused a connection, if it has accepted none since.
    refused: Option<Instant>,
    /// Time of the next attempt.
    again: Instant,
}

/// Result of asking for a connection.
#[derive(Debug)]
pub(in crate::store) enum Found<C, H> {
    Idle(C),
    /// There is none. The next one that is returned arrives here.
    Turn(oneshot::Receiver<H>),
}

impl<C, H> Default for Shelf<C, H> {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            idle: Vec::new(),
            waiting: VecDeque::new(),
            refused: None,
            again: Instant::now(),
        }))
    }
}

impl<C, H> Shelf<C, H> {
    pub(in crate::store) fn take_or_wait(&self) -> Found<C, H> {
        let mut inner = self.lock();
        if let Some(idle) = inner.idle.pop() {
            return Found::Idle(idle);
        }
        inner.waiting.retain(|waiting| !waiting.is_closed());
        let (hand_over, turn) = oneshot::channel();
        inner.waiting.push_back(hand_over);
        Found::Turn(turn)
    }

    /// Takes a connection back if no task waits for one. Otherwise, returns it with the task that has waited longest.
    pub(in crate::store) fn put(&self, idle: C) -> Option<(C, oneshot::Sender<H>)> {
        let mut inner = self.lock();
        while let Some(waiting) = inner.waiting.pop_front() {
            if !waiting.is_closed() {
                return Some((idle, waiting));
            }
        }
        inner.idle.push(idle);
        None
    }

    /// Removes and returns all idle connections.
    pub(in crate::store) fn clear(&self) -> Vec<C> {
        std::mem::take(&mut self.lock().idle)
    }

    /// Sends all waiting tasks away.
    pub(in crate::store) fn close(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        drop(waiting);
    }

    /// Waits until a connection may be opened: not at all, unless the server refused one recently. After that, only one
    /// of the waiting tasks tries at a time.
    pub(in crate::store) async fn may_connect(&self) {
        loop {
            let at = {
                let mut inner = self.lock();
                if inner.refused.is_none() {
                    return;
                }
                if inner.again <= Instant::now() {
                    inner.again = Instant::now() + PAUSE;
                    return;
                }
                inner.again
            };
            tokio::time::sleep_until(at).await;
        }
    }

    /// Records that the server has no room for another connection. Returns whether that is new.
    pub(in crate::store) fn refused(&self) -> bool {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.again = now + PAUSE;
        inner.refused.replace(now).is_none()
    }

    /// Records that the server accepted a connection that was begun at this time. Returns whether it had no room
    /// before. A connection that was begun before another one was refused proves nothing.
    pub(in crate::store) fn connected(&self, begun: Instant) -> bool {
        let mut inner = self.lock();
        let is_news = inner.refused.is_some_and(|refused| refused < begun);
        if is_news {
            inner.refused = None;
        }
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C, H>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_comes_back_goes_to_whoever_has_waited_longest() {
        let shelf = Shelf::<u8, u8>::default();
        let turn = || match shelf.take_or_wait() {
            Found::Turn(turn) => turn,
            Found::Idle(idle) => panic!("{idle} is there"),
        };
        let (gone, mut first, second) = (turn(), turn(), turn());
        drop(gone);
        let (idle, hand_over) = shelf.put(1).expect("somebody waits");
        hand_over.send(idle).unwrap();
        assert_eq!((&mut first).now_or_never(), Some(Ok(1)));
        drop(second);
        assert!(shelf.put(2).is_none());
        assert!(matches!(shelf.take_or_wait(), Found::Idle(2)));
        let mut late = turn();
        shelf.close();
        assert!(matches!((&mut late).now_or_never(), Some(Err(_))));
    }

    #[tokio::test]
    async fn a_server_without_room_is_asked_by_one_at_a_time() {
        let shelf = Shelf::<u8, u8>::default();
        shelf.may_connect().now_or_never().expect("at once");
        let before = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(shelf.refused());
        assert!(!shelf.refused());
        assert!(shelf.may_connect().now_or_never().is_none());
        let begun = Instant::now();
        shelf.may_connect().await;
        assert!(begun.elapsed() >= PAUSE / 2);
        shelf.may_connect().await;
        assert!(begun.elapsed() >= PAUSE * 3 / 2);
        assert!(!shelf.connected(before));
        assert!(shelf.connected(Instant::now()));
        shelf.may_connect().now_or_never().expect("at once");
        assert!(!shelf.connected(Instant::now()));
    }
}
