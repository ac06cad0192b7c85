//! Forgetting and mending in pieces, so that nobody waits long for whoever does it.

use std::time::Duration;

use super::gate::Urgency;
use super::sql::{Arg, Sql};
use super::{Store, StoreError};

/// Rows of one transaction.
const PIECE: u64 = 1_000;

/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// Runs a statement that deletes or changes no more rows than its last argument says, until it finds fewer;
    /// says how many rows that were. What was done before an error stays so.
    pub(super) async fn in_pieces(&self, sql: &Sql, args: Vec<Arg>) -> Result<u64, StoreError> {
        let store = self.with_urgency(Urgency::Housekeeping);
        let mut total = 0;
        loop {
            let mut args = args.clone();
            args.push(PIECE.into());
            let mut tx = store.begin().await?;
            let forgotten = tx.execute(sql.clone(), args).await?;
            tx.commit().await?;
            total += forgotten;
            if forgotten < PIECE {
                return Ok(total);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Does what can as well be done another time, unless that takes longer than a moment: somebody waits
    /// for what it is done beside of.
    pub(super) async fn in_passing(
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
