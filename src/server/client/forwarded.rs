//! Headers in which proxies report their clients.
//!
//! Sources: RFC 7239 (`Forwarded`), and for `X-Forwarded-For` the order that every proxy keeps: each appends the
//! address that it was reached from.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// Maximum number of bytes in one header's values, and of proxies in a row. A longer chain is not read: its client is
/// unclear.
pub(super) const MAX_CHAIN: usize = 4 << 10;
pub(super) const MAX_HOPS: usize = 32;

/// Hops that one header lists, the first one first. `None` stands for a hop that is not an address.
pub(super) struct Chain {
    pub(super) hops: Vec<Option<IpAddr>>,
}

impl Chain {
    pub(super) fn of(
        headers: &HeaderMap,
        name: &str,
        read: fn(&str, &mut Vec<Option<IpAddr>>),
    ) -> Option<Self> {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        let mut hops = Vec::new();
        let mut length = 0;
        for value in values {
            length += value.len();
            match value.to_str() {
                Ok(text) if length <= MAX_CHAIN => read(text, &mut hops),
                _ => hops.push(None),
            }
            if length > MAX_CHAIN || hops.len() > MAX_HOPS {
                // The client must not be able to choose which part of an overlong chain is read.
                return Some(Self { hops: vec![None] });
            }
        }
        Some(Self { hops })
    }
}

/// Parses `X-Forwarded-For: 203.0.113.7, 10.0.0.1`.
pub(super) fn address_hops(text: &str, hops: &mut Vec<Option<IpAddr>>) {
    hops.extend(text.split(',').map(|hop| address(hop.trim())));
}

/// Parses `Forwarded: for=203.0.113.7;proto=https, for="[2001:db8::1]:4711"` (RFC 7239, section 4).
pub(super) fn forwarded_hops(text: &str, hops: &mut Vec<Option<IpAddr>>) {
    hops.extend(unquoted_split(text, b',').map(|element| {
        let mut pairs = unquoted_split(element, b';');
        let node = pairs.find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then_some(value)
        })?;
        let node = node.trim();
        let quoted = node.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
        address(quoted.unwrap_or(node))
    }));
}

/// Splits at separators outside of quotes. An unterminated quotation extends to the end of the text.
fn unquoted_split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !quoted && c == char::from(separator)
    })
}

/// Parses an address with or without a port, for IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(v6) => v6.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    };
    address
        .or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
        .map(|address| address.to_canonical())
}
