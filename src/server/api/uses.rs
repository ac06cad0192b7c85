//! Uses after exposure: somebody presents a key that has been seen in public.

use std::net::IpAddr;

use axum::extract::Request;
use jiff::Timestamp;

use crate::server::AppState;
use crate::server::client::Client;
use crate::store::Key;

/// The address of the client that presented a key, as the caller forwards it: the first entry of
/// `X-Forwarded-For`, in front of what trusted proxies appended. The caller is authenticated; whatever is no
/// address is as if not sent.
pub(super) fn forwarded_client(request: &Request) -> Option<IpAddr> {
    Client::of(request.extensions())?.forwarded
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
