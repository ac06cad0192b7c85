//! Uses after exposure: somebody presents a key that has been seen in public.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use jiff::Timestamp;

use crate::server::AppState;
use crate::store::Key;

/// The address of the client that presented a key, as the caller forwards it: the first entry of
/// `X-Forwarded-For`. The caller is authenticated; whatever is no address is as if not sent.
pub(super) fn forwarded_client(headers: &HeaderMap) -> Option<IpAddr> {
    let list = headers.get("x-forwarded-for")?.to_str().ok()?;
    let first = list.split(',').next()?.trim();
    first
        .parse()
        .ok()
        .or_else(|| first.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Records the use. Whether that works does not change the answer about the key; a key that is used
/// many times a second is recorded now and then only, so that using it cannot fill the database.
pub(super) async fn record(state: &AppState, key: &Key, at: Timestamp, client: Option<IpAddr>) {
    if !state.0.uses.allows(&key.id) {
        return;
    }
    let client = client.map(|address| address.to_string());
    let recorded = state
        .store()
        .record_use(key.id, at, client.as_deref())
        .await;
    if let Err(error) = recorded {
        tracing::error!(key = %key.id, %error, "a use after exposure could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_addresses_are_taken_over() {
        for (header, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:4711, 10.0.0.1", Some("203.0.113.7")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("unknown", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static(header));
            let client = forwarded_client(&headers).map(|address| address.to_string());
            assert_eq!(client.as_deref(), expected, "{header}");
        }
    }
}
