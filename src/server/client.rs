//! Client of a request: the peer of the connection, or the address that trusted proxies report.

pub(super) mod crowds;
mod forwarded;
pub(super) mod limit;
pub(super) mod listings;
mod network;
pub(super) mod reader;
pub(super) mod recall;
mod remembered;
pub(super) mod standing;
pub(super) mod turns;
pub(super) mod whole_log;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

use forwarded::{Chain, address_hops, forwarded_hops};

/// Network of the addresses that unclear clients are counted by, with the proxy in the lower half. Nothing is ever sent
/// from it (`100::/64`, RFC 6666).
const UNCLEAR: u128 = 0x0100 << 112;

/// Proxies that are trusted to report their clients. Cheap to clone; clones share the set.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<RwLock<Vec<IpNet>>>);

impl TrustedProxies {
    /// Creates a set of the proxies with addresses in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(Arc::new(RwLock::new(networks)))
    }

    /// Trusts the proxies in these networks, and no others, from the next request on.
    pub fn replace(&self, networks: Vec<IpNet>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = networks;
    }

    /// Returns whether the proxy at this address is trusted.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let networks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        networks.iter().any(|network| network.contains(&address))
    }

    /// Determines the client of a request that `peer` sent, from the headers of the trusted proxies in front of this
    /// server.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        let forwarded = Chain::of(headers, "forwarded", forwarded_hops);
        let x_forwarded_for = Chain::of(headers, "x-forwarded-for", address_hops);
        let walk = |chain: &Option<Chain>| chain.as_ref().map(|chain| self.walk(peer, chain));
        match (walk(&forwarded), walk(&x_forwarded_for)) {
            (None, None) => Client {
                address: peer,
                is_clear: true,
                forwarded: None,
            },
            // A proxy maintains one of the headers and passes the other one on as the client sent it, and nothing tells
            // which. If they contradict each other, neither is believed.
            (Some(one), Some(other)) if one.whom() != other.whom() => Client {
                address: peer,
                is_clear: false,
                forwarded: other.forwarded,
            },
            (_, Some(client)) | (Some(client), None) => client,
        }
    }

    /// Walks the chain from the right: each hop was appended by the one to its right, and counts as long as that one is
    /// trusted.
    fn walk(&self, peer: IpAddr, chain: &Chain) -> Client {
        let mut address = peer;
        let mut is_clear = true;
        let mut hops = chain.hops.iter().rev();
        while self.contains(address) {
            match hops.next() {
                Some(Some(hop)) => address = *hop,
                // An unreadable hop is not believed, and may stand for anybody.
                Some(None) => {
                    is_clear = false;
                    break;
                }
                // The nearest proxy sent the request itself.
                None => break,
            }
        }
        Client {
            address,
            is_clear,
            forwarded: hops.next_back().copied().flatten(),
        }
    }
}

/// Client that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    /// Address nearest to the client that a trusted proxy vouches for, or the peer's if there is no proxy.
    pub(super) address: IpAddr,
    /// `false` if the address is that of a proxy whose client is unknown.
    is_clear: bool,
    /// First address that the client itself forwards, in front of those that trusted proxies appended.
    pub(super) forwarded: Option<IpAddr>,
}

impl Client {
    /// Returns the client of a request that [`serve`](super::connections::serve) has accepted.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// Returns the address that limits and budgets count the sender of a request by.
    pub(super) fn counted(parts: &Parts) -> IpAddr {
        let client = Self::of(&parts.extensions);
        client.map_or(IpAddr::from([0; 4]), Self::counted_by)
    }

    /// Returns the address that limits and budgets count this client by. All unclear clients behind a proxy share one.
    /// It differs from the proxy's own, so that they do not share its standing and limits, nor those of the clients it
    /// reports.
    pub(super) fn counted_by(self) -> IpAddr {
        let counted = counted_as(self.address);
        if self.is_clear {
            return counted;
        }
        let proxy = match counted {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => u128::from(v6) >> 64,
        };
        IpAddr::V6((UNCLEAR | proxy).into())
    }

    fn whom(self) -> (IpAddr, bool) {
        (self.address, self.is_clear)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_clear {
            f.write_str("unclear behind ")?;
        }
        self.address.fmt(f)
    }
}

/// Returns whether an address is one that unclear clients are counted by.
pub(super) fn is_unclear(counted: IpAddr) -> bool {
    matches!(counted, IpAddr::V6(v6) if u128::from(v6) >> 64 == UNCLEAR >> 64)
}

/// Returns the address that a client is counted by: its own, or for IPv6 its /64 network, the least that a subscriber
/// has.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::forwarded::{MAX_CHAIN, MAX_HOPS};
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn whole(peer: &str, headers: &[(&'static str, &str)]) -> Client {
        let networks = ["10.0.0.0/8", "2001:db8:aa::/48", "127.0.0.1/32"];
        let networks = networks.iter().map(|network| network.parse().unwrap());
        let trusted = TrustedProxies::new(networks.collect());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            map.append(HeaderName::from_static(name), value);
        }
        trusted.client(peer.parse().unwrap(), &map)
    }

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> (String, Option<String>) {
        let client = whole(peer, headers);
        let forwarded = client.forwarded.map(|address| address.to_string());
        (client.address.to_string(), forwarded)
    }

    fn seen(peer: &str, headers: &[(&'static str, &str)]) -> String {
        client(peer, headers).0
    }

    const XFF: &str = "x-forwarded-for";
    const FORWARDED: &str = "forwarded";

    #[test]
    fn strangers_have_no_say_in_who_they_are() {
        for (header, value) in [
            (XFF, "198.51.100.1"),
            (XFF, "10.0.0.1"),
            (FORWARDED, "for=198.51.100.1"),
        ] {
            assert_eq!(seen("203.0.113.9", &[(header, value)]), "203.0.113.9");
        }
        assert_eq!(
            seen("2001:db8:bb::1", &[(XFF, "10.0.0.1")]),
            "2001:db8:bb::1"
        );
    }

    #[test]
    fn a_trusted_proxy_says_who_its_client_is() {
        for (value, expected) in [
            ("198.51.100.1", "198.51.100.1"),
            ("198.51.100.1:4711", "198.51.100.1"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            // The client's own entries stand to the left of those that proxies appended.
            ("192.0.2.66, 198.51.100.1", "198.51.100.1"),
            ("10.1.1.1, 198.51.100.1", "198.51.100.1"),
            // Two proxies in a row.
            ("192.0.2.66, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("192.0.2.66,198.51.100.1,10.0.0.3,10.0.0.2", "198.51.100.1"),
            // All of them are trusted: the first one sent the request itself.
            ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
            // Nothing readable: the proxy itself is all that is known.
            ("", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("198.51.100.1, _hidden", "10.0.0.1"),
            ("198.51.100.1, ", "10.0.0.1"),
            ("198.51.100.1, bogus, 10.0.0.2", "10.0.0.2"),
            ("[198.51.100.1]", "10.0.0.1"),
            ("198.51.100.1:99999", "10.0.0.1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[(XFF, value)]), expected, "{value}");
            assert_eq!(
                seen("::ffff:10.0.0.1", &[(XFF, value)]),
                expected,
                "{value}"
            );
        }
        let lines = [(XFF, "192.0.2.66"), (XFF, "198.51.100.1")];
        assert_eq!(seen("10.0.0.1", &lines), "198.51.100.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (value, expected) in [
            ("for=198.51.100.1", "198.51.100.1"),
            (
                "For=\"198.51.100.1:4711\";proto=https;by=10.0.0.1",
                "198.51.100.1",
            ),
            ("proto=https ; for = 198.51.100.1", "198.51.100.1"),
            ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            (
                "for=192.0.2.66, for=198.51.100.1;host=\"a,b;for=192.0.2.1\"",
                "198.51.100.1",
            ),
            ("for=198.51.100.1, for=\"10.0.0.2\"", "198.51.100.1"),
            ("for=unknown", "10.0.0.1"),
            ("for=_secret", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
            ("for=198.51.100.1, by=10.0.0.2", "10.0.0.1"),
            ("for=\"198.51.100.1", "10.0.0.1"),
            ("host=\"x, for=198.51.100.1", "10.0.0.1"),
            ("host=\"\\\"\";for=198.51.100.1", "198.51.100.1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[(FORWARDED, value)]), expected, "{value}");
        }
    }

    #[test]
    fn where_the_two_headers_disagree_neither_is_believed() {
        let same = [(XFF, "198.51.100.1"), (FORWARDED, "for=198.51.100.1")];
        assert_eq!(seen("10.0.0.1", &same), "198.51.100.1");
        let smuggled = [(XFF, "198.51.100.1"), (FORWARDED, "for=192.0.2.66")];
        assert_eq!(seen("10.0.0.1", &smuggled), "10.0.0.1");
    }

    /// Otherwise anybody could pass for the proxy by forging a header, and share its standing and limits.
    #[test]
    fn whoever_is_unclear_is_not_the_proxy() {
        let proxy = whole("10.0.0.1", &[]);
        assert_eq!(proxy.to_string(), "10.0.0.1");
        // Nothing but proxies: the first of them sent the request itself.
        for own in [
            vec![],
            vec![(XFF, "10.0.0.1")],
            vec![(FORWARDED, "for=10.0.0.1")],
        ] {
            assert_eq!(whole("10.0.0.1", &own).counted_by(), proxy.counted_by());
        }
        let long = "x".repeat(MAX_CHAIN + 1);
        for headers in [
            vec![(XFF, "198.51.100.1"), (FORWARDED, "for=192.0.2.66")],
            vec![(XFF, "198.51.100.1"), (FORWARDED, "for=10.0.0.1")],
            vec![(XFF, "198.51.100.1"), (FORWARDED, "for=unknown")],
            vec![(XFF, "10.0.0.1"), (FORWARDED, "for=unknown")],
            vec![(XFF, "bogus"), (FORWARDED, "for=unknown")],
            vec![(XFF, "198.51.100.1, bogus")],
            vec![(XFF, &long)],
        ] {
            let client = whole("10.0.0.1", &headers);
            assert_eq!(client.to_string(), "unclear behind 10.0.0.1", "{headers:?}");
            assert_ne!(client.counted_by(), proxy.counted_by(), "{headers:?}");
            assert!(is_unclear(client.counted_by()), "{headers:?}");
        }
        // Each proxy has its own address for unclear clients.
        let bogus = [(XFF, "bogus")];
        let counted = |peer: &str| whole(peer, &bogus).counted_by();
        assert_ne!(counted("10.0.0.1"), counted("10.0.0.2"));
        assert_ne!(counted("10.0.0.1"), counted("2001:db8:aa:1::1"));
        assert_ne!(counted("2001:db8:aa:2::1"), counted("2001:db8:aa:1::1"));
        for clear in ["10.0.0.1", "::1", "2001:db8::", "::ffff:100.0.0.1"] {
            assert!(!is_unclear(counted_as(clear.parse().unwrap())), "{clear}");
        }
    }

    #[test]
    fn chains_without_end_are_not_read() {
        let many = vec!["10.0.0.2"; MAX_HOPS + 1].join(",");
        let chain = format!("198.51.100.1,{many}");
        assert_eq!(seen("10.0.0.1", &[(XFF, &chain)]), "10.0.0.1");
        let long = format!("{},198.51.100.1", "x".repeat(MAX_CHAIN));
        assert_eq!(seen("10.0.0.1", &[(XFF, &long)]), "10.0.0.1");
    }

    #[test]
    fn what_the_caller_forwards_stands_before_what_proxies_append() {
        let forwarded = |peer: &str, value: &str| client(peer, &[(XFF, value)]).1;
        let some = |text: &str| Some(text.to_owned());
        // Without a proxy the caller wrote the whole header.
        assert_eq!(forwarded("203.0.113.9", "192.0.2.7"), some("192.0.2.7"));
        assert_eq!(
            forwarded("203.0.113.9", "192.0.2.7, 10.9.9.9"),
            some("192.0.2.7")
        );
        assert_eq!(forwarded("203.0.113.9", "unknown"), None);
        // The last entry is the caller's own address, as the proxy saw it.
        assert_eq!(forwarded("10.0.0.1", "203.0.113.9"), None);
        assert_eq!(
            forwarded("10.0.0.1", "192.0.2.7, 203.0.113.9"),
            some("192.0.2.7")
        );
        assert_eq!(
            forwarded("10.0.0.1", "192.0.2.7, 203.0.113.9, 10.0.0.2"),
            some("192.0.2.7")
        );
    }

    #[test]
    fn a_subscriber_is_one_client() {
        let client = |text: &str| counted_as(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
