//! Pruning and repairs in batches, so that no other transaction waits for long.

use std::time::Duration;

use super::super::{Store, StoreError};
use super::gate::Urgency;
use super::order::Locks;
use super::retry::retried;
use super::sql::{Arg, Sql};

/// Maximum number of rows per transaction.
const PIECE: u64 = 1_000;

/// Pause between two transactions.
const PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// Runs a statement that deletes or changes at most as many rows as its last argument says, until it affects fewer.
    /// Returns the total number of rows. The batches before an error remain committed.
    pub(in crate::store) async fn in_pieces(
        &self,
        locks: Locks,
        sql: &Sql,
        args: Vec<Arg>,
    ) -> Result<u64, StoreError> {
        let store = self.with_urgency(Urgency::Housekeeping);
        let mut total = 0;
        loop {
            let mut args = args.clone();
            args.push(PIECE.into());
            let forgotten = retried(|| async {
                let mut tx = store.begin().await?;
                tx.locks(locks);
                let forgotten = tx.execute(sql.clone(), args.clone()).await?;
                tx.commit().await?;
                Ok::<_, StoreError>(forgotten)
            })
            .await?;
            total += forgotten;
            if forgotten < PIECE {
                return Ok(total);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Runs work that can as well be done another time, but for 250 ms at most: a caller is waiting for the operation
    /// that it accompanies.
    pub(in crate::store) async fn in_passing(
        &self,
        work: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        const MOMENT: Duration = Duration::from_millis(250);
        match tokio::time::timeout(MOMENT, work).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Busy {
                database: self.0.name.clone(),
                cause: "it would have taken longer than a moment".to_owned(),
            }),
        }
    }
}
