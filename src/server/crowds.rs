//! How much each client has of something, its network, and the range that the network is in.

use std::collections::HashMap;
use std::net::IpAddr;

use super::standing::{network, range};

/// How many bodies of a network, and of a range of networks, count as much as one of a client. Whoever has an
/// address has few others of its network at the same time, and a crowd that rents addresses has them side by side.
const OF_NETWORK: u32 = 8;
const OF_RANGE: u32 = 32;

/// Bodies and bytes, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Crowds(HashMap<(Width, IpAddr), Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Width {
    Client,
    Network,
    Range,
}

/// What one of them has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) bodies: u32,
    pub(super) bytes: usize,
}

impl Crowds {
    /// Adds a body of this client.
    pub(super) fn add(&mut self, client: IpAddr, bytes: usize) {
        for who in widths(client) {
            let part = self.0.entry(who).or_default();
            part.bodies += 1;
            part.bytes += bytes;
        }
    }

    /// Takes a body of this client away, with what is left of its bytes.
    pub(super) fn remove(&mut self, client: IpAddr, bytes: usize) {
        for who in widths(client) {
            if let Some(part) = self.0.get_mut(&who) {
                part.bodies -= 1;
                part.bytes -= bytes;
                if part.bodies == 0 {
                    self.0.remove(&who);
                }
            }
        }
    }

    /// Changes the bytes of a body of this client.
    pub(super) fn resize(&mut self, client: IpAddr, before: usize, after: usize) {
        for who in widths(client) {
            if let Some(part) = self.0.get_mut(&who) {
                part.bytes = part.bytes - before + after;
            }
        }
    }

    /// Returns what this client has.
    pub(super) fn of_client(&self, client: IpAddr) -> Part {
        self.of((Width::Client, client))
    }

    /// Returns how many bodies this client has by its own and its neighbors' account.
    pub(super) fn weight(&self, client: IpAddr) -> u32 {
        let [range, network, own] = self.counts(client);
        own + network / OF_NETWORK + range / OF_RANGE
    }

    /// Returns how many bodies there are of the client's range, of its network, and of itself.
    pub(super) fn counts(&self, client: IpAddr) -> [u32; 3] {
        let [own, network, range] = widths(client).map(|who| self.of(who).bodies);
        [range, network, own]
    }

    /// Returns everything that clients have, added up.
    #[cfg(test)]
    pub(super) fn total(&self) -> Part {
        let mut total = Part::default();
        for ((width, _), part) in &self.0 {
            if *width == Width::Client {
                total.bodies += part.bodies;
                total.bytes += part.bytes;
            }
        }
        total
    }

    fn of(&self, who: (Width, IpAddr)) -> Part {
        self.0.get(&who).copied().unwrap_or_default()
    }
}

fn widths(client: IpAddr) -> [(Width, IpAddr); 3] {
    [
        (Width::Client, client),
        (Width::Network, network(client)),
        (Width::Range, range(client)),
    ]
}
