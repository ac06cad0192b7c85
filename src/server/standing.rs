//! What is known of those who send bodies: whose were genuine lately, and whose were not.
//!
//! Before a body is read whole nobody can say whether it is genuine. But whoever sent genuine ones will do so again, and
//! a crowd that makes signatures up is known by them after one body each. So when there is too much for all, senders
//! that proved themselves come first, strangers next, and last whoever wasted what was given to him.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a genuine body speaks for its sender, and a wasted one against him.
const TRUSTED_FOR: Duration = Duration::from_hours(24);
const DISTRUSTED_FOR: Duration = Duration::from_mins(10);

/// How many are remembered of each kind: some 2 MiB in all.
const MOST_TRUSTED: usize = 4096;
const MOST_DISTRUSTED: usize = 16_384;

/// How a sender stands, the better the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Sent what was not genuine, or nothing whole.
    Suspect,
    /// Nothing is known.
    Unknown,
    /// Somebody in the same network sent something genuine: forges send from many addresses of few networks.
    Neighbor,
    /// Sent something genuine, or shows by the head of the request who it is.
    Known,
}

/// How all senders stand that are remembered.
#[derive(Debug)]
pub(super) struct Standings {
    trusted: Mutex<Remembered>,
    networks: Mutex<Remembered>,
    distrusted: Mutex<Remembered>,
}

impl Standings {
    pub(super) fn new() -> Self {
        Self::lasting(TRUSTED_FOR, DISTRUSTED_FOR)
    }

    fn lasting(trusted: Duration, distrusted: Duration) -> Self {
        Self {
            trusted: Mutex::new(Remembered::new(MOST_TRUSTED, trusted)),
            networks: Mutex::new(Remembered::new(MOST_TRUSTED, trusted)),
            distrusted: Mutex::new(Remembered::new(MOST_DISTRUSTED, distrusted)),
        }
    }

    /// How this client stands.
    pub(super) fn of(&self, client: IpAddr) -> Standing {
        if lock(&self.trusted).has(client) {
            Standing::Known
        } else if lock(&self.distrusted).has(client) {
            Standing::Suspect
        } else if lock(&self.networks).has(network(client)) {
            Standing::Neighbor
        } else {
            Standing::Unknown
        }
    }

    /// The client sent something genuine.
    pub(super) fn trust(&self, client: IpAddr) {
        lock(&self.distrusted).seen.remove(&client);
        lock(&self.trusted).note(client);
        lock(&self.networks).note(network(client));
    }

    /// The client had a body read that was not genuine, or that it did not send to the end. What it sent of genuine
    /// ones counts for more: behind a proxy that nobody told of, it is many clients.
    pub(super) fn distrust(&self, client: IpAddr) {
        lock(&self.distrusted).note(client);
    }
}

fn lock(remembered: &Mutex<Remembered>) -> MutexGuard<'_, Remembered> {
    remembered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client's neighbors share with it: 24 bits of IPv4, 48 of IPv6.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 80)).into()),
    }
}

/// Addresses, and when each was last noted.
#[derive(Debug)]
struct Remembered {
    most: usize,
    lasts: Duration,
    seen: HashMap<IpAddr, Instant>,
}

impl Remembered {
    fn new(most: usize, lasts: Duration) -> Self {
        Self {
            most,
            lasts,
            seen: HashMap::new(),
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        let seen = self.seen.get(&address);
        seen.is_some_and(|seen| seen.elapsed() < self.lasts)
    }

    fn note(&mut self, address: IpAddr) {
        if self.seen.len() >= self.most && !self.seen.contains_key(&address) {
            self.forget();
        }
        self.seen.insert(address, Instant::now());
    }

    /// Forgets the older half, so that not each further address has all of them looked through.
    fn forget(&mut self) {
        let mut times: Vec<Instant> = self.seen.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.seen.retain(|_, seen| *seen > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn senders_are_remembered_for_a_while() {
        let standings = Standings::new();
        let (genuine, forger) = (client("192.0.2.1"), client("198.51.100.1"));
        assert_eq!(standings.of(genuine), Standing::Unknown);
        standings.distrust(genuine);
        assert_eq!(standings.of(genuine), Standing::Suspect);
        standings.trust(genuine);
        standings.distrust(forger);
        // A wasted body of a sender of genuine ones, or of somebody beside it.
        standings.distrust(genuine);
        standings.distrust(client("192.0.2.3"));
        for (address, standing) in [
            ("192.0.2.1", Standing::Known),
            ("192.0.2.2", Standing::Neighbor),
            ("192.0.2.3", Standing::Suspect),
            ("192.0.3.1", Standing::Unknown),
            ("198.51.100.1", Standing::Suspect),
            ("198.51.100.2", Standing::Unknown),
        ] {
            assert_eq!(standings.of(client(address)), standing, "{address}");
        }
    }

    #[test]
    fn nothing_is_held_against_anybody_for_ever() {
        let moment = Duration::from_millis(10);
        let standings = Standings::lasting(moment, moment);
        standings.trust(client("192.0.2.1"));
        standings.distrust(client("198.51.100.1"));
        std::thread::sleep(moment);
        for address in ["192.0.2.1", "192.0.2.2", "198.51.100.1"] {
            assert_eq!(standings.of(client(address)), Standing::Unknown);
        }
    }

    #[test]
    fn neighbors_share_a_network() {
        for (one, other, are_neighbors) in [
            ("192.0.2.1", "192.0.2.255", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("2001:db8:1:1::", "2001:db8:1:ffff::", true),
            ("2001:db8:1::", "2001:db8:2::", false),
        ] {
            let is_equal = network(client(one)) == network(client(other));
            assert_eq!(is_equal, are_neighbors, "{one} {other}");
        }
    }

    #[test]
    fn whoever_has_many_addresses_makes_nobody_forgotten_who_is_trusted() {
        let standings = Standings::new();
        standings.trust(client("192.0.2.1"));
        for number in 0..3 * u32::try_from(MOST_DISTRUSTED).unwrap() {
            standings.distrust(Ipv4Addr::from_bits(number).into());
            assert!(lock(&standings.distrusted).seen.len() <= MOST_DISTRUSTED);
        }
        assert_eq!(standings.of(client("192.0.2.1")), Standing::Known);
        let last = 3 * u32::try_from(MOST_DISTRUSTED).unwrap() - 1;
        let last = standings.of(Ipv4Addr::from_bits(last).into());
        assert_eq!(last, Standing::Suspect);
    }
}
