//! Accounts of the time that those who push had lately in a lane of few places.
//!
//! Whoever had the least of it is next, and whoever has a place gives way to those only that had less than he, what he
//! has now included. Hosts share among each other, and owners among those of their host: whatever comes of one of
//! them, and however much, he shares his part with himself. Of an owner's repositories the one that had the least is next,
//! but none gives way to another: each would lose what came of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time in which half of what was used is forgotten.
const HALF: f64 = 60.0;

/// The most seconds that somebody who comes is ahead of those that are there, so that nobody saves up.
const CREDIT: f64 = 6.0;

/// Difference in seconds below which two amounts count as equal: rounding depends on the order of the divisions.
const NOTHING: f64 = 0.001;

/// The most accounts. Strangers can name more.
const ACCOUNTS_MAX: usize = 1_024;

/// The most of those that wait elsewhere that are told, least served first.
const TOLD_MAX: usize = 32;

/// Levels of an account: hosts that are one together, host, owner, repository.
const LEVELS: usize = 4;

/// Level of an owner, the last one at which others press.
const OWNER: usize = 2;

/// Account that is charged for the time of a fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payer {
    names: [String; LEVELS],
}

impl Payer {
    /// Creates a payer for the repository of an owner at a host. Hosts of the same `group` share one part.
    pub fn new(group: &str, host: &str, owner: &str, repository: &str) -> Self {
        Self {
            names: [group, host, owner, repository].map(str::to_owned),
        }
    }

    /// Returns the first level at which they differ. `None` if they are of the same owner.
    fn parts_from(&self, other: &Self) -> Option<usize> {
        let mut pairs = self.names.iter().zip(&other.names).take(OWNER + 1);
        pairs.position(|(mine, its)| mine != its)
    }
}

/// Time used recently, by level. Of several payers that wait at the same moment, the one with the least is next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used([Duration; LEVELS]);

impl Used {
    /// Returns what the owner used, whatever of it was for the repository.
    #[must_use]
    pub fn of_owner(mut self) -> Self {
        self.0[OWNER + 1..].fill(Duration::ZERO);
        self
    }
}

/// Pressure on a fetch to give up its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressed {
    /// Nobody waits that had less.
    No,
    /// Somebody waits whose time is the same.
    ByEquals,
    /// Somebody waits that had less, with the present turn counted.
    ByLess,
    /// Somebody waits that had less before the present turn already.
    ByMuchLess,
}

/// Recent usage of a lane, and the payers that wait for it.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// By the names of their levels; the empty name is for all together.
    accounts: HashMap<Vec<String>, Account>,
    /// Those who wait here, by a number.
    waiting: Vec<(u64, Payer)>,
    waited: u64,
    /// Those who wait elsewhere.
    told: Vec<Payer>,
}

/// Seconds that were used, and of what is below it the most that anybody had used who had a turn.
#[derive(Debug, Clone, Copy)]
struct Account {
    used: f64,
    served: f64,
    at: Instant,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            used: 0.0,
            served: 0.0,
            at: now,
        }
    }

    /// Returns the account as it is at a later moment.
    fn at(self, now: Instant) -> Self {
        let part = kept(now.saturating_duration_since(self.at));
        Self {
            used: self.used * part,
            served: self.served * part,
            at: now,
        }
    }
}

/// Returns the part of what was used that is not forgotten after a time.
fn kept(time: Duration) -> f64 {
    (-time.as_secs_f64() / HALF).exp2()
}

impl Book {
    fn account(&self, names: &[String], now: Instant) -> Account {
        let known = self.accounts.get(names).copied();
        known.map_or(Account::new(now), |known| known.at(now))
    }

    fn change(&mut self, names: &[String], now: Instant, change: impl FnOnce(&mut Account)) {
        let mut account = self.account(names, now);
        change(&mut account);
        self.accounts.insert(names.to_vec(), account);
    }

    /// Returns the seconds that somebody used, on each level.
    fn used(&self, payer: &Payer, now: Instant) -> [f64; LEVELS] {
        let mut used = [0.0; LEVELS];
        for (level, used) in used.iter_mut().enumerate() {
            let least = self.account(&payer.names[..level], now).served - CREDIT;
            let own = self.account(&payer.names[..=level], now).used;
            *used = own.max(least);
        }
        used
    }

    fn order(&self, payer: &Payer, now: Instant) -> Used {
        let used = self.used(payer, now);
        Used(used.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }

    fn charge(&mut self, payer: &Payer, seconds: f64, now: Instant) {
        let used = self.used(payer, now);
        for (level, used) in used.iter().enumerate() {
            self.change(&payer.names[..=level], now, |account| {
                account.used = used + seconds;
            });
        }
        self.forget(now);
    }

    /// Notes that somebody has a turn now.
    fn begin(&mut self, payer: &Payer, now: Instant) -> [f64; LEVELS] {
        let used = self.used(payer, now);
        for (level, used) in used.iter().enumerate() {
            self.change(&payer.names[..level], now, |account| {
                account.served = account.served.max(*used);
            });
        }
        self.forget(now);
        used
    }

    /// Forgets those that used next to nothing, and if there are too many others, those that used the least.
    fn forget(&mut self, now: Instant) {
        if self.accounts.len() <= ACCOUNTS_MAX {
            return;
        }
        let mut all: Vec<f64> = self.accounts.values().map(|of| of.at(now).used).collect();
        let most = all.len() / 2;
        let (_, most, _) = all.select_nth_unstable_by(most, f64::total_cmp);
        let most = *most;
        let mut left = ACCOUNTS_MAX / 2;
        self.accounts.retain(|names, account| {
            let is_kept = names.is_empty() || (account.at(now).used >= most && left > 0);
            left -= usize::from(is_kept && left > 0);
            is_kept
        });
    }

    fn all_waiting(&self) -> impl Iterator<Item = &Payer> {
        let waiting = self.waiting.iter().map(|(_, payer)| payer);
        waiting.chain(&self.told)
    }
}

impl Ledger {
    /// Returns what somebody used lately.
    pub fn used(&self, payer: &Payer, now: Instant) -> Used {
        self.book().order(payer, now)
    }

    /// Notes who waits now for places that are handed out elsewhere.
    pub fn tell(&self, payers: impl IntoIterator<Item = Payer>) {
        let now = Instant::now();
        let mut book = self.book();
        let mut told: Vec<Payer> = Vec::new();
        for payer in payers {
            if !told.contains(&payer) {
                told.push(payer);
            }
        }
        told.sort_by_key(|payer| book.order(payer, now));
        told.truncate(TOLD_MAX);
        book.told = told;
    }

    /// Returns whether anybody waits here.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.book().waiting.is_empty()
    }

    /// Returns the number of those who wait here.
    pub(super) fn waiting(&self) -> usize {
        self.book().waiting.len()
    }

    /// Returns whether somebody else waits that had less than `payer`.
    pub(super) fn is_for_others(&self, payer: &Payer) -> bool {
        let book = self.book();
        let now = Instant::now();
        let used = book.used(payer, now);
        book.all_waiting().any(|waiter| {
            let differs = payer.parts_from(waiter);
            differs.is_some_and(|level| book.used(waiter, now)[level] + NOTHING < used[level])
        })
    }

    /// Notes that somebody waits here, until the result is dropped.
    pub(super) fn wait(self: &Arc<Self>, payer: &Payer) -> Waiter {
        let mut book = self.book();
        book.waited += 1;
        let number = book.waited;
        book.waiting.push((number, payer.clone()));
        Waiter {
            ledger: Arc::clone(self),
            number,
        }
    }

    /// Begins a turn of somebody, who pays for it until the result is dropped.
    pub(super) fn begin(self: &Arc<Self>, payer: &Payer) -> Turn {
        let now = Instant::now();
        Turn {
            start: self.book().begin(payer, now),
            ledger: Arc::clone(self),
            payer: payer.clone(),
            begun: now,
            paid: Mutex::new(now),
        }
    }

    #[cfg(test)]
    pub(crate) fn charge(&self, payer: &Payer, seconds: f64) {
        self.book().charge(payer, seconds, Instant::now());
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits, until dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    ledger: Arc<Ledger>,
    number: u64,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        book.waiting.retain(|(number, _)| *number != self.number);
    }
}

/// A turn, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    ledger: Arc<Ledger>,
    payer: Payer,
    /// Seconds used at each level before the turn.
    start: [f64; LEVELS],
    begun: Instant,
    /// End of the time that was paid for.
    paid: Mutex<Instant>,
}

impl Turn {
    /// Returns how long it lasts so far.
    pub(super) fn lasts(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Returns how much it is wanted to end.
    pub(super) fn pressed(&self) -> Pressed {
        self.pay();
        let now = Instant::now();
        let book = self.ledger.book();
        let (used, part) = (book.used(&self.payer, now), kept(now - self.begun));
        let pressed = book.all_waiting().map(|waiter| {
            let Some(level) = self.payer.parts_from(waiter) else {
                return Pressed::ByEquals;
            };
            let its = book.used(waiter, now)[level] + NOTHING;
            if its < self.start[level] * part {
                Pressed::ByMuchLess
            } else if its < used[level] {
                Pressed::ByLess
            } else {
                Pressed::No
            }
        });
        pressed.max().unwrap_or(Pressed::No)
    }

    fn pay(&self) {
        let now = Instant::now();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.saturating_duration_since(*paid).as_secs_f64();
        *paid = now;
        drop(paid);
        self.ledger.book().charge(&self.payer, seconds, now);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pay();
    }
}

#[cfg(test)]
mod tests;
