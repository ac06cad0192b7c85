//! Numbers of bodies and bytes per client, per network, and per range of networks.

use std::collections::HashMap;
use std::net::IpAddr;

use super::network::{network, range};

/// Number of bodies of a network, and of a range of networks, that count as much as one of the client itself. An
/// ordinary client has few others in its network at the same time; a crowd that rents addresses has them side by side.
const OF_NETWORK: u32 = 8;
const OF_RANGE: u32 = 32;

/// Bodies and bytes counted by client, network and range.
#[derive(Debug, Default)]
pub(in crate::server) struct Crowds(HashMap<(Width, IpAddr), Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Width {
    Client,
    Network,
    Range,
}

/// Bodies and bytes of one client, network or range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::server) struct Part {
    pub(in crate::server) bodies: u32,
    pub(in crate::server) bytes: usize,
}

impl Crowds {
    /// Adds a body of this client.
    pub(in crate::server) fn add(&mut self, client: IpAddr, bytes: usize) {
        for who in widths(client) {
            let part = self.0.entry(who).or_default();
            part.bodies += 1;
            part.bytes += bytes;
        }
    }

    /// Removes a body of this client, together with its remaining `bytes`.
    pub(in crate::server) fn remove(&mut self, client: IpAddr, bytes: usize) {
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

    /// Changes the size of a body of this client, in bytes.
    pub(in crate::server) fn resize(&mut self, client: IpAddr, before: usize, after: usize) {
        for who in widths(client) {
            if let Some(part) = self.0.get_mut(&who) {
                part.bytes = part.bytes - before + after;
            }
        }
    }

    /// Returns the bodies and bytes of this client.
    pub(in crate::server) fn of_client(&self, client: IpAddr) -> Part {
        self.of((Width::Client, client))
    }

    /// Returns the number of bodies that the client is charged with: its own, and a part of its neighbors'.
    pub(in crate::server) fn weight(&self, client: IpAddr) -> u32 {
        let [range, network, own] = self.counts(client);
        own + network / OF_NETWORK + range / OF_RANGE
    }

    /// Returns the numbers of bodies of the client's range, of its network, and of the client itself.
    pub(in crate::server) fn counts(&self, client: IpAddr) -> [u32; 3] {
        let [own, network, range] = widths(client).map(|who| self.of(who).bodies);
        [range, network, own]
    }

    /// Returns the sum over all clients.
    #[cfg(test)]
    pub(in crate::server) fn total(&self) -> Part {
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
