//! Uses after exposure: checks of a key that has been seen in public.

use std::net::IpAddr;

use axum::extract::Request;
use jiff::Timestamp;

use crate::server::AppState;
use crate::server::client::Client;
use crate::store::{Key, Urgency};

/// Returns the address of the client that presented a key, as forwarded by the caller: the first entry of
/// `X-Forwarded-For`, in front of those that trusted proxies appended. The caller is authenticated; an entry that is
/// not an address is ignored.
pub(super) fn forwarded_client(request: &Request) -> Option<IpAddr> {
    Client::of(request.extensions())?.forwarded
}

/// Records the use. A failure does not change the answer about the key. A key that is used many times a second is
/// recorded only some of the time, so that using it cannot fill the database.
pub(super) async fn record(state: &AppState, key: &Key, at: Timestamp, client: Option<IpAddr>) {
    if !state.0.rooms.uses.allows(&key.id) {
        return;
    }
    let client = client.map(|address| address.to_string());
    // A caller can present any number of leaked keys.
    let store = state.store().with_urgency(Urgency::Issuance);
    let recorded = store.record_use(key.id, at, client.as_deref()).await;
    if let Err(error) = recorded {
        tracing::error!(key = %key.id, %error, "a use after exposure could not be recorded");
    }
}
