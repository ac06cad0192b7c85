//! Senders that proved themselves before the last restart, so that a daemon restarted in the middle of a flood knows
//! them.
//!
//! The database stores a digest of each such client's address, and the hour of its last proof. The digests are keyed,
//! and the key is in the same database. That hides no address from anyone who has the whole database, and need not: it
//! keeps plain addresses out of tables, dumps of a table and statement logs, since nothing has to read them.
//!
//! Nothing waits for any of this. Writes that fail are repeated later; if reading fails, senders count as strangers
//! until they prove themselves again.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use super::network::network;
use crate::clock::SharedClock;
use crate::store::{ProvedSender, Store, StoreError, Urgency};

/// Time for which a genuine body counts in favor of its sender.
pub(super) const TRUSTED_FOR: Duration = Duration::from_hours(24);

/// Maximum number of proved senders that are remembered.
pub(super) const MOST_TRUSTED: usize = 4096;

/// Interval at which proved senders are written. Each of them is written at most once an hour.
const EVERY: Duration = Duration::from_secs(5);

/// Pause after the database could not be used.
const RETRY: Duration = Duration::from_secs(30);

const HOUR: Duration = Duration::from_hours(1);
const HOURS_KEPT: i64 = (TRUSTED_FOR.as_secs() / HOUR.as_secs()).cast_signed();

/// Keyed digest of an address.
type Mark = [u8; 32];

/// Senders of former runs, and those of this run that are not in the database yet.
#[derive(Debug, Default)]
pub(in crate::server) struct Recall(Mutex<State>);

#[derive(Default)]
struct State {
    key: Option<Hmac<Sha256>>,
    /// Times until which they count as known, and as neighbors.
    senders: HashMap<Mark, Instant>,
    networks: HashMap<Mark, Instant>,
    /// Time at which each client was last taken to be written.
    taken: HashMap<IpAddr, Instant>,
    unwritten: HashSet<IpAddr>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} senders)", self.senders.len())
    }
}

impl Recall {
    /// Returns whether this client proved itself in a former run, not too long ago.
    pub(in crate::server) fn knows(&self, client: IpAddr) -> bool {
        let state = self.lock();
        !state.senders.is_empty() && state.has(&state.senders, client)
    }

    /// Returns whether a client in this one's network proved itself in a former run, not too long ago.
    pub(in crate::server) fn knows_network(&self, client: IpAddr) -> bool {
        let state = self.lock();
        !state.networks.is_empty() && state.has(&state.networks, network(client))
    }

    /// Records that this client proved itself.
    pub(in crate::server) fn note(&self, client: IpAddr) {
        let mut state = self.lock();
        let taken = state.taken.get(&client);
        if taken.is_none_or(|taken| taken.elapsed() >= HOUR) && state.unwritten.len() < MOST_TRUSTED
        {
            state.unwritten.insert(client);
        }
    }

    /// Loads the senders of former runs, then writes those that prove themselves until `stop`, and once more then.
    pub(in crate::server) async fn keep(
        &self,
        store: &Store,
        clock: &SharedClock,
        stop: &CancellationToken,
    ) {
        let store = store.with_urgency(Urgency::Housekeeping);
        while let Err(error) = self.read(&store, hour(clock.now())).await {
            tracing::warn!(%error, "loading the senders of genuine bodies failed, will retry");
            if stopped_within(RETRY, stop).await {
                return;
            }
        }
        let mut thinned_out: Option<Instant> = None;
        loop {
            let is_last = stopped_within(EVERY, stop).await;
            let hour = hour(clock.now());
            let mut kept = self.write(&store, hour).await;
            if kept.is_ok() && thinned_out.is_none_or(|last| last.elapsed() >= HOUR) && !is_last {
                thinned_out = Some(Instant::now());
                let most = u32::try_from(MOST_TRUSTED).unwrap_or(u32::MAX);
                let forgotten = store.forget_proved_senders(hour - HOURS_KEPT, most).await;
                kept = forgotten.map(|_| ());
            }
            if let Err(error) = kept {
                tracing::warn!(%error, "saving the senders of genuine bodies failed, will retry");
                if !is_last && stopped_within(RETRY, stop).await {
                    return;
                }
            }
            if is_last {
                return;
            }
        }
    }

    async fn read(&self, store: &Store, hour: i64) -> Result<(), StoreError> {
        let key = store.sender_key(rand::random()).await?;
        let most = u32::try_from(MOST_TRUSTED).unwrap_or(u32::MAX);
        let senders = store.proved_senders(hour - HOURS_KEPT, most).await?;
        let mut state = self.lock();
        state.key = Hmac::new_from_slice(&key).ok();
        for sender in senders {
            // The clock of the former run was ahead: the proof counts as a present one.
            let age = u32::try_from(hour - sender.hour).unwrap_or(0);
            let until = Instant::now() + TRUSTED_FOR.saturating_sub(HOUR * age);
            state.senders.insert(sender.sender, until);
            let of_network = state.networks.entry(sender.network).or_insert(until);
            *of_network = until.max(*of_network);
        }
        Ok(())
    }

    async fn write(&self, store: &Store, hour: i64) -> Result<(), StoreError> {
        let (clients, senders) = self.take(hour);
        if senders.is_empty() {
            return Ok(());
        }
        let written = store.add_proved_senders(senders).await;
        if written.is_err() {
            self.give_back(clients);
        }
        written
    }

    /// Takes the records that are to be written, and the clients that they are about.
    fn take(&self, hour: i64) -> (HashSet<IpAddr>, Vec<ProvedSender>) {
        let mut state = self.lock();
        let clients = std::mem::take(&mut state.unwritten);
        state.taken.retain(|_, taken| taken.elapsed() < HOUR);
        let senders = clients.iter().filter_map(|client| {
            Some(ProvedSender {
                sender: state.mark(*client)?,
                network: state.mark(network(*client))?,
                hour,
            })
        });
        let senders = senders.collect();
        let now = Instant::now();
        state
            .taken
            .extend(clients.iter().map(|client| (*client, now)));
        (clients, senders)
    }

    fn give_back(&self, clients: HashSet<IpAddr>) {
        let mut state = self.lock();
        for client in clients {
            state.taken.remove(&client);
            if state.unwritten.len() < MOST_TRUSTED {
                state.unwritten.insert(client);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has(&self, among: &HashMap<Mark, Instant>, address: IpAddr) -> bool {
        let mark = self.mark(address);
        let until = mark.and_then(|mark| among.get(&mark));
        until.is_some_and(|until| Instant::now() < *until)
    }

    fn mark(&self, address: IpAddr) -> Option<Mark> {
        let mut mac = self.key.clone()?;
        match address {
            IpAddr::V4(v4) => mac.update(&v4.octets()),
            IpAddr::V6(v6) => mac.update(&v6.octets()),
        }
        Some(mac.finalize().into_bytes().into())
    }
}

fn hour(now: Timestamp) -> i64 {
    now.as_second().div_euclid(HOUR.as_secs().cast_signed())
}

/// Waits for `pause`, or until `stop`. Returns whether it was stopped.
async fn stopped_within(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn keyed(recall: &Recall) {
        recall.lock().key = Hmac::new_from_slice(&KEY).ok();
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_sender_is_written_once_an_hour_and_again_after_a_failure() {
        let recall = Recall::default();
        keyed(&recall);
        recall.note(client("192.0.2.1"));
        recall.note(client("192.0.2.1"));
        let (clients, senders) = recall.take(5);
        assert_eq!((clients.len(), senders.len(), senders[0].hour), (1, 1, 5));
        recall.note(client("192.0.2.1"));
        assert!(recall.take(5).1.is_empty());
        recall.give_back(clients);
        assert_eq!(recall.take(6).1.len(), 1);
    }

    #[test]
    fn however_many_prove_themselves_few_wait_to_be_written() {
        let recall = Recall::default();
        for number in 0..u32::try_from(2 * MOST_TRUSTED).unwrap() {
            recall.note(std::net::Ipv4Addr::from_bits(number).into());
        }
        assert_eq!(recall.lock().unwritten.len(), MOST_TRUSTED);
    }
}
