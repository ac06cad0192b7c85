//! Networks and ranges that addresses belong to.

use std::net::{IpAddr, Ipv4Addr};

/// Returns the network that a client shares with its neighbors: a /24 for IPv4, a /48 for IPv6.
pub(in crate::server) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 80)).into()),
    }
}

/// Returns the range that contains a client's network: a /16 for IPv4, a /32 for IPv6, which is about what one provider
/// has.
pub(in crate::server) fn range(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xffff).into(),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 96)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
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
}
