//! Addresses that are remembered for a while, and as many of them as there is room for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses with the time at which each was last noted.
#[derive(Debug)]
pub(super) struct Remembered {
    most: usize,
    lasts: Duration,
    seen: HashMap<IpAddr, Instant>,
}

impl Remembered {
    pub(super) fn new(most: usize, lasts: Duration) -> Self {
        Self {
            most,
            lasts,
            seen: HashMap::new(),
        }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        let seen = self.seen.get(&address);
        seen.is_some_and(|seen| seen.elapsed() < self.lasts)
    }

    pub(super) fn note(&mut self, address: IpAddr) {
        if self.seen.len() >= self.most && !self.seen.contains_key(&address) {
            self.forget_half();
        }
        self.seen.insert(address, Instant::now());
    }

    /// Forgets this address.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.seen.remove(&address);
    }

    /// Returns the number of addresses that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Forgets the older half, so that not every further address requires a scan of all of them.
    fn forget_half(&mut self) {
        let mut times: Vec<Instant> = self.seen.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.seen.retain(|_, seen| *seen > median);
    }
}

/// Number of distinct members seen in each group.
#[derive(Debug)]
pub(super) struct Groups {
    /// Number of members of each group since it was last quiet.
    members: HashMap<IpAddr, usize>,
    seen: Remembered,
}

impl Groups {
    pub(super) fn new(most: usize, lasts: Duration) -> Self {
        Self {
            members: HashMap::new(),
            seen: Remembered::new(most, lasts),
        }
    }

    pub(super) fn members(&self, group: IpAddr) -> usize {
        let members = self.members.get(&group).filter(|_| self.seen.has(group));
        members.copied().unwrap_or(0)
    }

    pub(super) fn note(&mut self, group: IpAddr, is_new_member: bool) {
        if !self.seen.has(group) {
            self.members.remove(&group);
        }
        *self.members.entry(group).or_default() += usize::from(is_new_member);
        self.seen.note(group);
        if self.members.len() > self.seen.most {
            let seen = &self.seen.seen;
            self.members.retain(|group, _| seen.contains_key(group));
        }
    }

    /// Returns the numbers of groups that are remembered, and that are counted.
    #[cfg(test)]
    pub(super) fn len(&self) -> [usize; 2] {
        [self.seen.len(), self.members.len()]
    }
}
