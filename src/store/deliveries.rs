//! Deliveries of webhooks that changed something, and what their sources add up to.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::order::Locks;
use super::sql::{Arg, Fields, args, runs, statements};
use super::{Read, Store, StoreError, Tx};

/// Rows of one statement.
const ROWS_MAX: usize = 128;

statements! {
    RECORD = "INSERT INTO webhook_deliveries (source, delivery, received_at) VALUES {rows:3}
        ON CONFLICT (source, delivery) DO NOTHING RETURNING source, delivery";
    UNDO = "DELETE FROM webhook_deliveries WHERE (source, delivery) IN (VALUES {rows:2})";
    FORGET = "DELETE FROM webhook_deliveries WHERE (source, delivery) IN (
        SELECT source, delivery FROM webhook_deliveries WHERE received_at < {now} - $1 LIMIT $2)";
    /// What was dropped is later than the last success, whatever the clock says. It is known until there is another
    /// success: after a restart too.
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

/// A delivery of a webhook. Forges repeat them, and people make them do so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delivery {
    /// The webhook's name, such as `webhook:github`.
    pub source: String,
    /// What the forge calls the delivery.
    pub id: String,
}

/// What a webhook saw since this was last added to its source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookCounts {
    /// Deliveries that were verified and read.
    pub deliveries: u64,
    /// Work items that they became.
    pub items: u64,
    /// Deliveries of which something could not be used.
    pub malformed: u64,
    /// Deliveries whose texts were scanned.
    pub texts: u64,
    /// Deliveries of a type that this version does not know.
    pub unknown: u64,
    /// When the last of them arrived. `None` when there was none.
    pub last_at: Option<Timestamp>,
    /// When the last delivery came, if one of which something was lost was not followed by a better one.
    pub dropped_at: Option<Timestamp>,
    /// What is wrong at present, in words for an operator.
    pub error: Option<String>,
    /// What was refused, in words for an operator.
    pub refused: Option<String>,
}

impl Tx {
    /// Notes deliveries; gives those that were not noted before. In the transaction of their effects, so
    /// that a delivery that failed can be repeated.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn record_deliveries(
        &mut self,
        deliveries: &[Delivery],
        now: Timestamp,
    ) -> Result<HashSet<Delivery>, StoreError> {
        self.locks(Locks::Deliveries);
        // In one order in all transactions, so that two of them never wait for each other.
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

    /// Takes back that deliveries were noted, in the transaction that noted them: their rows are locked, so
    /// nothing new is.
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

fn delivery(row: &mut Fields<'_>) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        source: row.next()?,
        id: row.next()?,
    })
}

impl Store {
    /// Adds to the state of a webhook's source, which is made when it is not there. Several processes may
    /// do so for one webhook.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn count_webhook(
        &self,
        name: &str,
        counts: &WebhookCounts,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
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
        tx.execute(COUNT, args).await?;
        tx.commit().await
    }

    /// Forgets deliveries that were noted longer ago than `age`, a piece at a time; says how many.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn forget_deliveries(&self, age: Duration) -> Result<u64, StoreError> {
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX / 4);
        self.in_pieces(&FORGET, args![micros.min(i64::MAX / 4)])
            .await
    }
}
