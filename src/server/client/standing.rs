//! Reputation of the senders of bodies: those whose bodies were genuine lately, and those whose bodies were not.
//!
//! Before a body is read completely, nobody can tell whether it is genuine. But a sender of genuine bodies will send
//! more of them, and a crowd that forges signatures is recognized after one body of each. When there is too much for
//! all, senders that proved themselves therefore come first, strangers next, and senders that wasted room last.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::is_unclear;
use super::network::{network, range};
use super::recall::{MOST_TRUSTED, Recall, TRUSTED_FOR};
use super::remembered::{Groups, Remembered};

/// Time for which a wasted body counts against its sender.
const DISTRUSTED_FOR: Duration = Duration::from_mins(10);

/// Time for which others come before a stranger that was too slow, and for which a proved sender that was is a
/// stranger.
const SLOW_FOR: Duration = Duration::from_mins(1);

/// Number of clients in one network that have to have wasted room until the whole network is suspect: addresses for
/// IPv4, /64 networks for IPv6.
const CROWD_V4: usize = 8;
const CROWD_V6: usize = 4;

/// Number of networks in one range with such a client until strangers from the whole range are suspect.
const NETWORKS_V4: usize = 32;
const NETWORKS_V6: usize = 16;

/// Maximum number of entries of each kind: with those of proved senders some 2 MiB in all.
const MOST_DISTRUSTED: usize = 16_384;

/// Standing of a sender, the better the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) enum Standing {
    /// It sent a forged or an incomplete body; several clients in its network, or in many networks of its range, did;
    /// or its address is unclear.
    Suspect,
    /// It sent too slowly for others to wait, which is no sign of ill will.
    Slow,
    /// Nothing is known about it.
    Unknown,
    /// Another client in its network sent something genuine: forges send from many addresses in few networks.
    Neighbor,
    /// It sent something genuine, or identifies itself in the head of the request.
    Known,
}

impl Standing {
    pub(in crate::server) const ALL: [Self; 5] = [
        Self::Suspect,
        Self::Slow,
        Self::Unknown,
        Self::Neighbor,
        Self::Known,
    ];

    /// Returns the name of the standing in the log.
    pub(in crate::server) fn name(self) -> &'static str {
        match self {
            Self::Suspect => "suspect",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
            Self::Neighbor => "near a known one",
            Self::Known => "known",
        }
    }
}

/// Standings of all senders that are remembered.
#[derive(Debug)]
pub(in crate::server) struct Standings {
    /// Senders of former runs.
    pub(in crate::server) recall: Recall,
    trusted: Mutex<Remembered>,
    networks: Mutex<Remembered>,
    distrusted: Mutex<Distrusted>,
    slow: Mutex<Remembered>,
}

/// Senders that wasted room.
#[derive(Debug)]
struct Distrusted {
    clients: Remembered,
    /// Distrusted clients by network, and networks with such clients by range.
    networks: Groups,
    ranges: Groups,
}

impl Standings {
    pub(in crate::server) fn new() -> Self {
        Self::lasting(TRUSTED_FOR, DISTRUSTED_FOR, SLOW_FOR)
    }

    fn lasting(trusted: Duration, distrusted: Duration, slow: Duration) -> Self {
        Self {
            recall: Recall::default(),
            trusted: Mutex::new(Remembered::new(MOST_TRUSTED, trusted)),
            networks: Mutex::new(Remembered::new(MOST_TRUSTED, trusted)),
            distrusted: Mutex::new(Distrusted {
                clients: Remembered::new(MOST_DISTRUSTED, distrusted),
                networks: Groups::new(MOST_DISTRUSTED, distrusted),
                ranges: Groups::new(MOST_DISTRUSTED, distrusted),
            }),
            slow: Mutex::new(Remembered::new(MOST_DISTRUSTED, slow)),
        }
    }

    /// Returns the standing of this client.
    pub(in crate::server) fn of(&self, client: IpAddr) -> Standing {
        if is_unclear(client) {
            Standing::Suspect
        } else if lock(&self.trusted).has(client) || self.recall.knows(client) {
            self.of_proved(client)
        } else if lock(&self.distrusted).has(client) {
            Standing::Suspect
        } else if lock(&self.slow).has(client) {
            Standing::Slow
        } else if lock(&self.networks).has(network(client)) || self.recall.knows_network(client) {
            Standing::Neighbor
        } else if lock(&self.distrusted).has_range(client) {
            Standing::Suspect
        } else {
            Standing::Unknown
        }
    }

    /// Returns the standing of a client that proved itself, lately or in the head of its request. If it was too slow it
    /// is as a stranger for a while, so that whoever can repeat something genuine does not hold room by it.
    pub(in crate::server) fn of_proved(&self, client: IpAddr) -> Standing {
        if lock(&self.slow).has(client) {
            Standing::Unknown
        } else {
            Standing::Known
        }
    }

    /// Records that the client sent something genuine. An unclear client gains nothing by that: it vouches for nobody
    /// else.
    pub(in crate::server) fn trust(&self, client: IpAddr) {
        if is_unclear(client) {
            return;
        }
        lock(&self.distrusted).clients.forget(client);
        lock(&self.slow).forget(client);
        lock(&self.trusted).note(client);
        lock(&self.networks).note(network(client));
        self.recall.note(client);
    }

    /// Records that the client sent too slowly for others to wait.
    pub(in crate::server) fn delayed(&self, client: IpAddr) {
        lock(&self.slow).note(client);
    }

    /// Records that the client sent a forged body, or did not send one to its end. Genuine bodies from the same address
    /// count for more: behind a proxy that is not configured as trusted, it is many clients.
    pub(in crate::server) fn distrust(&self, client: IpAddr) {
        if !is_unclear(client) {
            lock(&self.distrusted).note(client);
        }
    }
}

fn lock<T>(remembered: &Mutex<T>) -> MutexGuard<'_, T> {
    remembered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Distrusted {
    fn has(&self, client: IpAddr) -> bool {
        let crowd = if client.is_ipv4() { CROWD_V4 } else { CROWD_V6 };
        self.clients.has(client) || self.networks.members(network(client)) >= crowd
    }

    fn has_range(&self, client: IpAddr) -> bool {
        let crowd = if client.is_ipv4() {
            NETWORKS_V4
        } else {
            NETWORKS_V6
        };
        self.ranges.members(range(client)) >= crowd
    }

    fn note(&mut self, client: IpAddr) {
        let network = network(client);
        let is_new_network = self.networks.members(network) == 0;
        self.networks.note(network, !self.clients.has(client));
        self.ranges.note(range(client), is_new_network);
        self.clients.note(client);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
        // A wasted body from a sender of genuine ones, and one from its neighbor.
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
    fn whoever_is_unclear_stays_so_whatever_it_sends() {
        let standings = Standings::new();
        let unclear = client("100::a00:1");
        standings.trust(unclear);
        assert_eq!(standings.of(unclear), Standing::Suspect);
        assert_eq!(standings.of(client("100::a00:2")), Standing::Suspect);
        assert_eq!(standings.of(client("100:0:0:1::")), Standing::Unknown);
    }

    #[test]
    fn nothing_is_held_against_anybody_for_ever() {
        let moment = Duration::from_millis(10);
        let standings = Standings::lasting(moment, moment, moment);
        standings.delayed(client("203.0.113.1"));
        standings.trust(client("192.0.2.1"));
        for number in 1..=CROWD_V4 {
            standings.distrust(client(&format!("198.51.100.{number}")));
        }
        std::thread::sleep(moment);
        for address in ["192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1"] {
            assert_eq!(standings.of(client(address)), Standing::Unknown);
        }
    }

    #[test]
    fn whoever_is_slow_comes_after_strangers_and_before_forgers() {
        let standings = Standings::new();
        for number in 1..20 {
            standings.delayed(client(&format!("192.0.2.{number}")));
        }
        assert_eq!(standings.of(client("192.0.2.1")), Standing::Slow);
        assert_eq!(standings.of(client("192.0.2.100")), Standing::Unknown);
        assert!(Standing::Suspect < Standing::Slow && Standing::Slow < Standing::Unknown);
        let slow = client("192.0.2.1");
        standings.trust(slow);
        assert_eq!(standings.of(slow), Standing::Known);
        // Whoever is known is then a stranger, until something genuine comes in time.
        standings.delayed(slow);
        assert_eq!(standings.of(slow), Standing::Unknown);
        assert_eq!(standings.of_proved(slow), Standing::Unknown);
        standings.trust(slow);
        assert_eq!(standings.of_proved(slow), Standing::Known);
    }

    #[test]
    fn a_crowd_is_known_by_its_network() {
        let standings = Standings::new();
        standings.trust(client("192.0.2.200"));
        standings.trust(client("2001:db8:1:f::"));
        for (number, (v4, v6)) in [
            (3, (Standing::Neighbor, Standing::Neighbor)),
            (4, (Standing::Neighbor, Standing::Suspect)),
            (7, (Standing::Neighbor, Standing::Suspect)),
            (8, (Standing::Suspect, Standing::Suspect)),
        ] {
            // Repeated bodies of the same clients do not make them more.
            for number in [1..=number, 1..=number].into_iter().flatten() {
                standings.distrust(client(&format!("192.0.2.{number}")));
                standings.distrust(client(&format!("2001:db8:1:{number}::")));
            }
            assert_eq!(standings.of(client("192.0.2.100")), v4, "{number}");
            assert_eq!(standings.of(client("2001:db8:1:ff::")), v6, "{number}");
        }
        // Proved senders and other networks are not affected.
        assert_eq!(standings.of(client("192.0.2.200")), Standing::Known);
        assert_eq!(standings.of(client("2001:db8:1:f::")), Standing::Known);
        assert_eq!(standings.of(client("192.0.3.1")), Standing::Unknown);
        assert_eq!(standings.of(client("2001:db8:2::")), Standing::Unknown);
    }

    /// A renter of a range of addresses has few in each of its networks.
    #[test]
    fn a_crowd_is_known_by_its_range() {
        let standings = Standings::new();
        standings.trust(client("198.51.200.1"));
        let cases = [
            (NETWORKS_V4 - 1, Standing::Unknown),
            (NETWORKS_V4, Standing::Suspect),
        ];
        for (networks, standing) in cases {
            for number in 1..=networks {
                standings.distrust(client(&format!("198.51.{number}.1")));
            }
            assert_eq!(standings.of(client("198.51.100.1")), standing);
        }
        for number in 1..=NETWORKS_V6 {
            standings.distrust(client(&format!("2001:db8:{number:x}:1::")));
        }
        for (address, standing) in [
            ("198.51.200.1", Standing::Known),
            ("198.51.200.2", Standing::Neighbor),
            ("198.52.100.1", Standing::Unknown),
            ("2001:db8:ff::", Standing::Suspect),
            ("2001:db9:ff::", Standing::Unknown),
        ] {
            assert_eq!(standings.of(client(address)), standing, "{address}");
        }
    }

    #[test]
    fn whoever_has_many_addresses_makes_nobody_forgotten_who_is_trusted() {
        let standings = Standings::new();
        standings.trust(client("192.0.2.1"));
        for number in 0..3 * u32::try_from(MOST_DISTRUSTED).unwrap() {
            standings.distrust(Ipv4Addr::from_bits(number).into());
            let distrusted = lock(&standings.distrusted);
            let [seen, networks] = distrusted.networks.len();
            let [seen_ranges, ranges] = distrusted.ranges.len();
            for count in [
                distrusted.clients.len(),
                seen,
                networks,
                seen_ranges,
                ranges,
            ] {
                assert!(count <= MOST_DISTRUSTED);
            }
        }
        assert_eq!(standings.of(client("192.0.2.1")), Standing::Known);
        let last = 3 * u32::try_from(MOST_DISTRUSTED).unwrap() - 1;
        let last = standings.of(Ipv4Addr::from_bits(last).into());
        assert_eq!(last, Standing::Suspect);
    }
}
