//! Allocation of connections: operations that are awaited come first, and none waits forever.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Urgency of an operation on the database, compared with the others of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// The answer is awaited by a partner, a forge, a caller of the API, or a person at a terminal.
    Awaited,
    /// Findings of workers and sources, in pieces of few sightings, and the ends of their items.
    Work,
    /// A key that is created, rotated or changed for a caller of the API, who can ask for any number.
    Issuance,
    /// Much of one sender: a message with many sightings, an import.
    Bulk,
    /// A list, or a detailed view, that somebody reads. It may be costly.
    Listing,
    /// Nothing depends on it: pruning, and notes that save work later.
    Housekeeping,
}

/// Interval, in places handed over, at which a place goes to whoever has waited longest, whatever the urgency of the
/// others.
const FAIR: u32 = 5;

/// Maximum number of operations that wait, per urgency.
const WAITING_MAX: usize = 8_192;

/// A fixed number of places.
#[derive(Debug)]
pub(in crate::store) struct Gate(Mutex<Places>);

#[derive(Debug)]
struct Places {
    free: u32,
    /// By urgency. Empty while a place is free.
    waiting: [VecDeque<Waiting>; 6],
    arrivals: u64,
    handed_over: u32,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    arrival: u64,
    hand_over: oneshot::Sender<Pass>,
}

/// Right to a place, until it is dropped.
#[derive(Debug)]
pub(in crate::store) struct Pass(Option<Arc<Gate>>);

/// Reason why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum NoPass {
    Closed,
    TooMany,
}

impl Gate {
    pub(in crate::store) fn new(places: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Places {
            free: places,
            waiting: Default::default(),
            arrivals: 0,
            handed_over: 0,
            closed: false,
        })))
    }

    /// Waits for a place. Dropping the future gives up the turn or the place.
    pub(in crate::store) async fn enter(
        self: &Arc<Self>,
        urgency: Urgency,
    ) -> Result<Pass, NoPass> {
        let turn = {
            let mut places = self.lock();
            if places.closed {
                return Err(NoPass::Closed);
            }
            if places.free > 0 {
                places.free -= 1;
                return Ok(Pass(Some(Arc::clone(self))));
            }
            places.line_up(urgency)?
        };
        turn.await.map_err(|_| NoPass::Closed)
    }

    /// Closes the gate: no one gets in any more, and waiting operations are sent away.
    pub(in crate::store) fn close(&self) {
        let mut places = self.lock();
        places.closed = true;
        places.waiting = Default::default();
    }

    pub(in crate::store) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Returns the number of free places.
    pub(in crate::store) fn free(&self) -> u32 {
        self.lock().free
    }

    fn leave(self: &Arc<Self>) {
        loop {
            let next = {
                let mut places = self.lock();
                let Some(next) = places.next() else {
                    places.free += 1;
                    return;
                };
                next
            };
            match next.hand_over.send(Pass(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // The receiver no longer waits, and the place is still to be handed over.
                Err(mut place) => drop(place.0.take()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn line_up(&mut self, urgency: Urgency) -> Result<oneshot::Receiver<Pass>, NoPass> {
        let queue = &mut self.waiting[urgency as usize];
        if queue.len() >= WAITING_MAX {
            queue.retain(|waiting| !waiting.hand_over.is_closed());
            if queue.len() >= WAITING_MAX {
                return Err(NoPass::TooMany);
            }
        }
        self.arrivals += 1;
        let (hand_over, turn) = oneshot::channel();
        queue.push_back(Waiting {
            arrival: self.arrivals,
            hand_over,
        });
        Ok(turn)
    }

    fn next(&mut self) -> Option<Waiting> {
        for queue in &mut self.waiting {
            while queue.front().is_some_and(|w| w.hand_over.is_closed()) {
                queue.pop_front();
            }
        }
        let fronts = self.waiting.iter_mut().filter(|queue| !queue.is_empty());
        self.handed_over += 1;
        let queue = if self.handed_over.is_multiple_of(FAIR) {
            fronts.min_by_key(|queue| queue.front().map(|waiting| waiting.arrival))
        } else {
            fronts.into_iter().next()
        };
        queue?.pop_front()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_is_waited_for_comes_first_and_nobody_starves() {
        use Urgency::{Awaited, Housekeeping, Work};
        let gate = Gate::new(1);
        let mut held = gate.enter(Work).now_or_never().unwrap().ok();
        let mut waiting: Vec<_> = [
            Housekeeping,
            Work,
            Awaited,
            Awaited,
            Awaited,
            Awaited,
            Awaited,
        ]
        .into_iter()
        .map(|urgency| (urgency, Box::pin(gate.enter(urgency))))
        .collect();
        for (_, turn) in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held.take());
            let at = waiting.iter_mut().position(|(_, turn)| {
                held = turn.now_or_never().map(Result::unwrap);
                held.is_some()
            });
            order.push(waiting.remove(at.unwrap()).0);
        }
        assert_eq!(
            order,
            [
                Awaited,
                Awaited,
                Awaited,
                Awaited,
                Housekeeping,
                Awaited,
                Work
            ]
        );
        assert_eq!(gate.free(), 0);
        drop(held);
        assert_eq!(gate.free(), 1);
    }

    #[test]
    fn a_turn_given_up_is_passed_on() {
        let gate = Gate::new(1);
        let held = gate.enter(Urgency::Work).now_or_never().unwrap();
        let mut gone = Box::pin(gate.enter(Urgency::Awaited));
        let mut late = Box::pin(gate.enter(Urgency::Awaited));
        let mut last = Box::pin(gate.enter(Urgency::Work));
        for turn in [&mut gone, &mut late, &mut last] {
            assert!(turn.now_or_never().is_none());
        }
        drop(gone);
        drop(held);
        // The place was handed over already, and not taken.
        drop(late);
        assert!(last.now_or_never().unwrap().is_ok());
        assert_eq!(gate.free(), 1);
    }

    #[test]
    fn a_closed_gate_sends_everybody_away() {
        let gate = Gate::new(1);
        let held = gate.enter(Urgency::Work).now_or_never().unwrap();
        let mut waits = Box::pin(gate.enter(Urgency::Awaited));
        assert!((&mut waits).now_or_never().is_none());
        gate.close();
        assert_eq!(waits.now_or_never().unwrap().err(), Some(NoPass::Closed));
        drop(held);
        let late = gate.enter(Urgency::Awaited).now_or_never().unwrap();
        assert_eq!(late.err(), Some(NoPass::Closed));
        assert_eq!(gate.free(), 1);
    }
}
