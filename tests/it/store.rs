//! The store does the same on a SQLite file and on PostgreSQL.

mod addresses;
mod failures;
mod holders;
mod hunted;
mod incidents;
mod keys;
mod log;
mod lookup;
mod misdated;
mod peppers;
mod pieces;
mod requests;
mod rests;
mod schema;
mod senders;
mod sources;
mod tokens;
mod transactions;
pub(crate) mod turns;
mod unread;
pub(crate) mod work;

use jiff::Timestamp;
use rescind::keyformat::Sha256Digest;
use rescind::store::{ImportOutcome, NewKey, Owner, Store};
use uuid::Uuid;

/// A time in whole microseconds, `second` seconds into the tests' day.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_microsecond(1_790_000_000_123_456 + second * 1_000_000).unwrap()
}

/// The digest of the value that the tests' key number `n` has.
pub(crate) fn digest(n: u64) -> Sha256Digest {
    Sha256Digest::of(format!("value {n}").as_bytes())
}

/// The tests' key number `n`, of the user `user-<n % 10>`.
pub(crate) fn new_key(n: u64) -> NewKey {
    NewKey {
        id: Uuid::now_v7(),
        project: "default".to_owned(),
        digest: digest(n),
        format: "rescind_secret".to_owned(),
        owner: Owner::user(format!("user-{}", n % 10)),
        description: format!("key {n}"),
        is_public: false,
        prefix: "rsc_sk_".to_owned(),
        last_four: format!("{n:04}"),
        policy: None,
        notify_emails: Vec::new(),
        created_at: at(n.try_into().unwrap()),
        expires_at: None,
        definition: None,
    }
}

pub(crate) async fn import(store: &Store, keys: &[NewKey]) -> Vec<ImportOutcome> {
    let mut tx = store.begin().await.unwrap();
    let outcomes = tx.import_keys(keys).await.unwrap();
    tx.commit().await.unwrap();
    outcomes
}
