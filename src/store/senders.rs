//! Senders that recently proved to be genuine, stored as digests that can be compared with an address only by means of
//! a key.

use super::db::order::Locks;
use super::db::retry::retried;
use super::db::sql::{ROWS_MAX, Row, args, one, runs, statements};
use super::{Read as _, Store, StoreError};

statements! {
    ADD_KEY = "INSERT INTO sender_key (only_row, secret) VALUES (1, $1) ON CONFLICT (only_row) DO NOTHING";
    KEY = "SELECT secret FROM sender_key";
    ADD = "INSERT INTO senders (sender, network, proved_hour) VALUES {rows:3}
        ON CONFLICT (sender) DO UPDATE SET proved_hour = excluded.proved_hour";
    SINCE = "SELECT sender, network, proved_hour FROM senders WHERE proved_hour >= $1
        ORDER BY proved_hour DESC LIMIT $2";
    FORGET = "DELETE FROM senders WHERE sender IN (SELECT sender FROM senders WHERE proved_hour < $1 LIMIT $2)";
    THIN_OUT = "DELETE FROM senders WHERE sender IN (
        SELECT sender FROM senders ORDER BY proved_hour DESC, sender LIMIT $2 OFFSET $1)";
}

/// A sender that proved itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProvedSender {
    /// Keyed digest of its address.
    pub sender: [u8; 32],
    /// Keyed digest of its network.
    pub network: [u8; 32],
    /// Time of the last proof, in hours since 1970.
    pub hour: i64,
}

impl Store {
    /// Returns the key for this database's digests of senders. Stores `fresh` if there is none yet.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn sender_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut read = self;
        // Read first: a database that accepts no changes at the moment may contain one.
        if let Some(key) = read.fetch_first(KEY, args![], one::digest).await? {
            return Ok(key);
        }
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::Senders);
            tx.execute(ADD_KEY, args![fresh]).await?;
            tx.commit().await
        })
        .await?;
        let key = read.fetch_first(KEY, args![], one::digest).await?;
        key.ok_or_else(|| StoreError::row("there is no key of senders".to_owned()))
    }

    /// Returns the senders that proved themselves in this hour or later, at most `limit`, most recent first.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn proved_senders(
        &self,
        hour: i64,
        limit: u32,
    ) -> Result<Vec<ProvedSender>, StoreError> {
        let mut read = self;
        read.fetch(SINCE, args![hour, limit], proved_sender).await
    }

    /// Records senders that proved themselves, all or none of them.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn add_proved_senders(
        &self,
        mut senders: Vec<ProvedSender>,
    ) -> Result<(), StoreError> {
        // Sorted in the same order in all transactions, and each sender once.
        senders.sort();
        senders.dedup_by_key(|sender| sender.sender);
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::Senders);
            for run in runs(senders.len(), ROWS_MAX) {
                let rows = &senders[run];
                let values = rows
                    .iter()
                    .flat_map(|row| args![row.sender, row.network, row.hour]);
                tx.execute(ADD.of(rows.len()), values.collect()).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Deletes the senders that last proved themselves before this hour, and all but `keep` of the others. Returns how
    /// many were deleted.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn forget_proved_senders(&self, hour: i64, keep: u32) -> Result<u64, StoreError> {
        let old = self.in_pieces(Locks::Senders, &FORGET, args![hour]).await?;
        Ok(old
            + self
                .in_pieces(Locks::Senders, &THIN_OUT, args![keep])
                .await?)
    }
}

fn proved_sender(row: &Row<'_>) -> Result<ProvedSender, StoreError> {
    Ok(ProvedSender {
        sender: row.digest("sender")?,
        network: row.digest("network")?,
        hour: row.get("proved_hour")?,
    })
}
