//! Restriction of the network addresses to which connections are made, against server-side request
//! forgery (CWE-918).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

use super::look_ups::look_up;

/// Decides which addresses may be connected to. Cheap to clone.
///
/// Addresses of the public internet are always admitted. Private addresses and those of this machine are
/// admitted for hosts that the operator named. Addresses that only lead to the machine's own provider or
/// network segment (link-local ones, metadata services, multicast, the unspecified address) are admitted
/// only if the operator wrote the address itself, never for a name.
///
/// As the resolver of an HTTP client, the guard checks the very addresses that are then connected to, so
/// a name that resolves to something else the next time gains nothing. An address in a URL is not
/// resolved and has to be passed to [`check`](Self::check). A proxy resolves names by itself, so behind a
/// proxy it is the proxy that has to enforce this.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Trust>);

/// Hosts that the operator named.
#[derive(Debug)]
enum Trust {
    Everybody,
    Hosts(HashSet<String>),
}

/// Error returned for an address that must not be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{host} is at {address}, {}", match .reach {
    Reach::Nobody => "which belongs to this machine's own network or provider: nothing is sent there",
    _ => "which is not an address of the internet: only hosts that the configuration names may have such a one",
})]
pub struct Refused {
    host: String,
    address: IpAddr,
    reach: Reach,
}

/// Reach of an address, in ascending order of restriction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Anybody on the internet.
    Public,
    /// This machine, or a host on one of the operator's networks.
    Private,
    /// No host that a request could legitimately be meant for.
    Nobody,
}

impl Guard {
    /// Creates a guard for requests whose hosts all come from the operator: any name may have a private
    /// address.
    pub fn operator() -> Self {
        Self(Arc::new(Trust::Everybody))
    }

    /// Creates a guard that admits public addresses only.
    pub fn public_only() -> Self {
        Self::trusting([])
    }

    /// Creates a guard that admits public addresses, and the hosts of the given URLs at private ones too.
    pub fn trusting<'u>(named: impl IntoIterator<Item = &'u Url>) -> Self {
        let hosts = named.into_iter().filter_map(Url::host_str).map(key_of);
        Self(Arc::new(Trust::Hosts(hosts.collect())))
    }

    /// Returns a guard that trusts the given host names as well.
    pub(super) fn and(&self, hosts: impl IntoIterator<Item = String>) -> Self {
        match &*self.0 {
            Trust::Everybody => self.clone(),
            Trust::Hosts(known) => {
                let hosts = hosts.into_iter().map(|host| key_of(&host));
                Self(Arc::new(Trust::Hosts(
                    hosts.chain(known.iter().cloned()).collect(),
                )))
            }
        }
    }

    /// Checks the address in a URL. A URL with a name always passes.
    ///
    /// # Errors
    /// Returns [`Refused`] if the address is neither public nor named by the operator.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        let Some(host) = url.host_str() else {
            return Ok(());
        };
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse() {
            Ok(address) if !self.trusts(host) && reach(address) != Reach::Public => {
                Err(Refused::new(host, address))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the host with the given name may be at `address`.
    fn admits(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        match reach(address) {
            Reach::Public => Ok(()),
            Reach::Private if self.trusts(host) => Ok(()),
            Reach::Private | Reach::Nobody => Err(Refused::new(host, address)),
        }
    }

    fn trusts(&self, host: &str) -> bool {
        match &*self.0 {
            Trust::Everybody => true,
            Trust::Hosts(hosts) => hosts.contains(&key_of(host)),
        }
    }
}

impl Refused {
    fn new(host: &str, address: IpAddr) -> Self {
        Self {
            host: host.to_owned(),
            address,
            reach: reach(address),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let mut admitted = Vec::new();
            let mut refused = None;
            for address in look_up(host).await?.iter() {
                match guard.admits(host, address.ip()) {
                    Ok(()) => admitted.push(*address),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if admitted.is_empty() => Err(error.into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
            }
        })
    }
}

fn key_of(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

/// Classifies an address by the IANA registry of special-purpose IPv4 addresses and the documentation of
/// providers.
fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // "This network", multicast, reserved and broadcast; link-local, which includes most metadata
        // services; the metadata services of Alibaba Cloud and Oracle Cloud, and the host agent of Azure.
        [0 | 224..=255, ..]
        | [169, 254, ..]
        | [100, 100, 100, 200]
        | [192, 0, 0, 192]
        | [168, 63, 129, 16] => Reach::Nobody,
        // RFC 1918, loopback, shared space (RFC 6598), protocol assignments, tests and documentation,
        // 6to4 relays.
        [10 | 127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _] => Reach::Private,
        _ => Reach::Public,
    }
}

/// Classifies an address by the IANA registry of special-purpose IPv6 addresses. If an IPv4 address is
/// embedded, the more restricted of the two counts.
fn reach_v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    let last = v4(segments[6], segments[7]);
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // Unspecified and IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => last,
        // Local-use NAT64 (RFC 8215).
        [0x64, 0xff9b, 1, ..] => last.max(Reach::Private),
        // 6to4, Teredo (RFC 4380 section 4: the client's address is inverted).
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, high, low, ..] => v4(high, low).max(v4(!segments[6], !segments[7])),
        // Metadata services of AWS and Google Cloud, link-local, multicast.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfe80..=0xfebf | 0xff00..=0xffff, ..] => Reach::Nobody,
        // Unique local, site-local; benchmarks, ORCHID, documentation; discard-only, segment routing.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff | 0x5f00, ..]
        | [0x2001, 2 | 0x10..=0x2f | 0x0db8, ..]
        | [0x3fff, 0..=0x0fff, ..]
        | [0x100, 0, 0, 0, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn addresses_are_known_in_whatever_they_are_embedded() {
        for (reached, addresses) in [
            (
                Reach::Public,
                "1.1.1.1 140.82.121.4 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.167.0.1 223.255.255.255 \
                             2606:4700::1111 ::ffff:1.1.1.1 64:ff9b::101:101 2002:101:101::1 2001:4860::1",
            ),
            (
                Reach::Private,
                "10.0.0.1 127.0.0.1 127.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 198.18.0.1 192.0.2.1 \
                              ::1 fc00::1 fd12:3456::1 fec0::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::10.0.0.1 \
                              64:ff9b:1::1.1.1.1 2002:a00:1::1 2002:7f00:1::1 2001:0:101:101::f5ff:fffe 2001:db8::1",
            ),
            (
                Reach::Nobody,
                "0.0.0.0 0.1.2.3 169.254.169.254 169.254.0.1 100.100.100.200 192.0.0.192 168.63.129.16 224.0.0.1 239.1.1.1 \
                             240.0.0.1 255.255.255.255 :: fe80::1 febf::1 ff02::1 fd00:ec2::254 fd20:ce::254 ::ffff:169.254.169.254 \
                             ::ffff:0.0.0.0 64:ff9b::169.254.169.254 64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe::1 ::169.254.169.254 \
                             2001:0:101:101::5601:5601",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(reach(address.parse().unwrap()), reached, "{address}");
            }
        }
    }

    #[test]
    fn an_address_in_a_url_may_be_private_where_it_was_named() {
        let named = [
            url("http://10.0.0.7:3000"),
            url("http://169.254.7.7/x"),
            url("http://[fd00::7]"),
        ];
        let guard = Guard::trusting(&named);
        for allowed in [
            "http://10.0.0.7/a/b.git",
            "http://169.254.7.7",
            "https://[fd00::7]:99",
            "https://1.1.1.1",
            "https://a.example",
        ] {
            assert_eq!(guard.check(&url(allowed)), Ok(()), "{allowed}");
            assert_eq!(Guard::operator().check(&url(allowed)), Ok(()), "{allowed}");
        }
        for refused in [
            "http://127.0.0.1",
            "http://2130706433",
            "http://0x7f.1",
            "http://0177.0.0.1",
            "http://127.1",
            "http://0",
            "http://[::1]",
            "http://[::ffff:7f00:1]",
            "http://169.254.169.254/latest/meta-data",
            "http://0xa9fea9fe",
            "http://[fd00:ec2::254]",
            "http://10.0.0.8",
            "http://[64:ff9b::a00:1]",
            "http://127.0.0.1.",
        ] {
            assert!(guard.check(&url(refused)).is_err(), "{refused}");
            assert!(
                Guard::public_only().check(&url(refused)).is_err(),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_name_may_be_private_where_it_was_named_and_nobodys_nowhere() {
        let guard = Guard::trusting([&url("https://Git.Example:8443/scm")])
            .and(["proxy.example".to_owned()]);
        let (public, private) = (
            "1.1.1.1".parse().unwrap(),
            "::ffff:10.1.1.1".parse().unwrap(),
        );
        let metadata = "169.254.169.254".parse().unwrap();
        for (host, is_named) in [
            ("git.example", true),
            ("GIT.example.", true),
            ("proxy.example", true),
            ("evil.example", false),
            ("localhost", false),
        ] {
            assert!(guard.admits(host, public).is_ok());
            assert_eq!(guard.admits(host, private).is_ok(), is_named, "{host}");
            assert!(guard.admits(host, metadata).is_err(), "{host}");
        }
        assert!(Guard::operator().admits("any.example", private).is_ok());
        let refused = Guard::operator()
            .admits("any.example", metadata)
            .unwrap_err()
            .to_string();
        assert!(
            refused.starts_with("any.example is at 169.254.169.254, which"),
            "{refused}"
        );
    }
}
