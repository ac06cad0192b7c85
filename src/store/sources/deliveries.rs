//! Recorded webhook deliveries, and the totals of webhook sources.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, ROWS_MAX, Row, args, runs, statements};
use super::super::queue::micros;
use super::super::{Read, Store, StoreError, Tx};

statements! {
    RECORD = "INSERT INTO webhook_deliveries (source, delivery, received_at) VALUES {rows:3}
        ON CONFLICT (source, delivery) DO NOTHING RETURNING source, delivery";
    UNDO = "DELETE FROM webhook_deliveries WHERE (source, delivery) IN (VALUES {rows:2})";
    FORGET = "DELETE FROM webhook_deliveries WHERE (source, delivery) IN (
        SELECT source, delivery FROM webhook_deliveries WHERE received_at < {now} - $1 LIMIT $2)";
    /// The time of a loss is made later than the last success, whatever the clock says, so that it is known until the
    /// next success, even after a restart.
    COUNT = "INSERT INTO sources (name, kind, cursor, polled_at, succeeded_at, newest_event_at, error, unseen,
            polls, events, items, gaps, malformed, texts, unknown, repaired)
        VALUES ($1, $2, '', $3, $4, $5, $6, $7, 0, $8, $9, 0, $10, $11, $12, 0)
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind,
            polled_at = CASE WHEN excluded.succeeded_at IS NULL AND excluded.polled_at <= sources.succeeded_at
                THEN sources.succeeded_at + 1 ELSE COALESCE(excluded.polled_at, sources.polled_at) END,
            succeeded_at = COALESCE(excluded.succeeded_at, sources.succeeded_at),
            newest_event_at = COALESCE(excluded.newest_event_at, sources.newest_event_at),
            error = CASE WHEN excluded.error IS NULL AND excluded.succeeded_at IS NULL
                    AND sources.polled_at > COALESCE(sources.succeeded_at, 0)
                THEN sources.error ELSE excluded.error END,
            unseen = excluded.unseen,
            events = sources.events + excluded.events, items = sources.items + excluded.items,
            malformed = sources.malformed + excluded.malformed,
            texts = sources.texts + excluded.texts, unknown = sources.unknown + excluded.unknown";
}

/// A delivery of a webhook. Forges repeat deliveries, and users can have them repeated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delivery {
    /// Name of the webhook, such as `webhook:github`.
    pub source: String,
    /// Identifier that the forge gave to the delivery.
    pub id: String,
}

/// Counts of a webhook since they were last added to its source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookCounts {
    /// Number of deliveries that were verified and read.
    pub deliveries: u64,
    /// Number of work items created from them.
    pub items: u64,
    /// Number of deliveries of which a part could not be used.
    pub malformed: u64,
    /// Number of deliveries whose texts were scanned.
    pub texts: u64,
    /// Number of deliveries of a type that this version does not know.
    pub unknown: u64,
    /// Time of the last of these deliveries. `None` if there were none.
    pub last_at: Option<Timestamp>,
    /// Time of the last delivery, if part of a delivery was lost and no better one has followed. `None` otherwise.
    pub dropped_at: Option<Timestamp>,
    /// Current problem, in words for an operator.
    pub error: Option<String>,
    /// Refused deliveries, in words for an operator.
    pub refused: Option<String>,
    /// Reason why a part of the last of those could not be used, in words for an operator. `None` if there are none of them.
    pub unread: Option<String>,
}

impl Tx {
    /// Records deliveries and returns those that had not been recorded before. Call this in the transaction of their
    /// effects, so that a delivery that failed can be repeated.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn record_deliveries(
        &mut self,
        deliveries: &[Delivery],
        now: Timestamp,
    ) -> Result<HashSet<Delivery>, StoreError> {
        self.locks(Locks::Deliveries);
        // Sorted in the same order in all transactions, so that no two of them wait for each other.
        let mut rows: Vec<&Delivery> = deliveries.iter().collect();
        rows.sort();
        rows.dedup();
        let mut new = HashSet::with_capacity(rows.len());
        for run in runs(rows.len(), ROWS_MAX) {
            let rows = &rows[run];
            let values = rows
                .iter()
                .flat_map(|row| args![&row.source, &row.id, now])
                .collect::<Vec<Arg>>();
            new.extend(self.fetch(RECORD.of(rows.len()), values, delivery).await?);
        }
        Ok(new)
    }

    /// Removes the records of deliveries, in the transaction that added them. Their rows are locked already, so this
    /// locks nothing new.
    pub(crate) async fn forget_recorded(
        &mut self,
        deliveries: &HashSet<Delivery>,
    ) -> Result<(), StoreError> {
        let rows: Vec<&Delivery> = deliveries.iter().collect();
        for run in runs(rows.len(), ROWS_MAX) {
            let rows = &rows[run];
            let values = rows.iter().flat_map(|row| args![&row.source, &row.id]);
            self.execute(UNDO.of(rows.len()), values.collect()).await?;
        }
        Ok(())
    }
}

fn delivery(row: &Row<'_>) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        source: row.get("source")?,
        id: row.get("delivery")?,
    })
}

impl Store {
    /// Adds to the state of a webhook's source, which is created if it does not exist. Several processes may do so for
    /// one webhook.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn count_webhook(
        &self,
        name: &str,
        counts: &WebhookCounts,
    ) -> Result<(), StoreError> {
        let succeeded_at = counts.last_at.filter(|_| counts.dropped_at.is_none());
        let args = args![
            name,
            "webhook",
            counts.dropped_at.or(counts.last_at),
            succeeded_at,
            counts.last_at,
            counts.error.clone(),
            counts.refused.clone(),
            counts.deliveries,
            counts.items,
            counts.malformed,
            counts.texts,
            counts.unknown,
        ];
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::Sources);
            tx.execute(COUNT, args.clone()).await?;
            if let Some(unread) = &counts.unread {
                tx.note_unread(name, unread).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Deletes the records of deliveries that are older than `age`, in batches. Returns how many were deleted.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn forget_deliveries(&self, age: Duration) -> Result<u64, StoreError> {
        self.in_pieces(Locks::Deliveries, &FORGET, args![micros(age)])
            .await
    }
}
