//! Totals of the work done for each source.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::super::db::order::Locks;
use super::super::db::sql::{Row, args, one, statements};
use super::super::queue::counts::{
    FailedTry, HOST_LEFT_ALONE, HostWait, NOTHING_TO_READ, SourceWork, TRIED_AGAIN, WorkDone,
};
use super::super::queue::micros;
use super::super::{Read, Store, StoreError, Tx};

/// Time after its next try for which a postponed item still indicates that its host is left alone. While a host is
/// unreachable, its items are tried one at a time, and each try can take as long as a connection attempt.
const LATELY: Duration = Duration::from_secs(15);

/// Time before an item was claimed at which its last try is taken to have failed while the next one is in flight. It is
/// not stored, and is longer ago than the least backoff.
const FAILED_BEFORE: Duration = Duration::from_mins(1);

macro_rules! work_columns {
    () => {
        "source, scanned, blobs, known_blobs, truncated, gone, shed, refused"
    };
}

statements! {
    /// The lag is measured on the database's clock, as leases are.
    ADD = concat!(
        "INSERT INTO source_work (", work_columns!(), ", lag, scanned_at)
            VALUES ($1, $2, $3, $4, $5, $6, 0, 0, {now} - $7, {now})
        ON CONFLICT (source) DO UPDATE SET scanned = source_work.scanned + excluded.scanned,
            blobs = source_work.blobs + excluded.blobs,
            known_blobs = source_work.known_blobs + excluded.known_blobs,
            truncated = source_work.truncated + excluded.truncated,
            gone = source_work.gone + excluded.gone, lag = excluded.lag,
            scanned_at = excluded.scanned_at"
    );
    ADD_SHED = "INSERT INTO source_work (source, scanned, blobs, known_blobs, truncated, gone, shed)
            VALUES ($1, 0, 0, 0, 0, 0, $2)
        ON CONFLICT (source) DO UPDATE SET shed = source_work.shed + excluded.shed";
    TAKE_SHED = "UPDATE source_work SET shed = CASE WHEN shed > $1 THEN shed - $1 ELSE 0 END
        WHERE source = $2";
    ADD_REFUSED = "INSERT INTO source_work
            (source, scanned, blobs, known_blobs, truncated, gone, shed, refused)
            VALUES ($1, 0, 0, 0, 0, 0, 0, $2)
        ON CONFLICT (source) DO UPDATE SET refused = source_work.refused + excluded.refused";
    NOTE_UNREAD = "INSERT INTO source_work
            (source, scanned, blobs, known_blobs, truncated, gone, shed, last_unread, unread_at)
            VALUES ($1, 0, 0, 0, 0, 0, 0, $2, {now})
        ON CONFLICT (source) DO UPDATE SET last_unread = excluded.last_unread, unread_at = excluded.unread_at";
    LIST = concat!("SELECT ", work_columns!(), ", lag, scanned_at, last_unread, unread_at FROM source_work");
    /// The redundant `state <> 'waiting'` is what lets SQLite use the index of finished items.
    LEFT = "SELECT source, COUNT(*) AS waiting, 0 AS dead,
            MIN(CASE WHEN denials = 0 THEN created_at END) AS oldest, NULL AS died_at,
            COUNT(CASE WHEN last_error LIKE $1 THEN 1 END) AS failed,
            MAX(CASE WHEN last_error LIKE $1 AND leased_by IS NULL THEN ready_at - COALESCE(wait, 0)
                WHEN last_error LIKE $1 THEN ready_at - COALESCE(wait, 0) - $2 END) AS failed_at,
            COUNT(CASE WHEN denials > 0 OR last_error LIKE $1 OR last_error LIKE $3 THEN 1 END) AS retrying
        FROM work_items WHERE state = 'waiting' GROUP BY source
        UNION ALL SELECT source, 0, COUNT(*), NULL, MAX(finished_at), 0, NULL, 0 FROM work_items
        WHERE state = 'dead' AND state <> 'waiting' GROUP BY source";
    LAST_FAILURE = "SELECT last_error FROM work_items
        WHERE state = 'waiting' AND source = $1 AND last_error LIKE $2
        ORDER BY ready_at - COALESCE(wait, 0) DESC LIMIT 1";
    /// The time is known of an item that waits for its backoff, not of one that is in flight, or that was named again and
    /// waits no longer.
    LAST_RETRY = "SELECT repository, ref_name, COALESCE(last_error, '') AS last_error,
            CASE WHEN leased_by IS NULL AND ready_at > wait THEN ready_at - wait END AS failed_at
        FROM work_items
        WHERE state = 'waiting' AND source = $1 AND (denials > 0 OR last_error LIKE $2 OR last_error LIKE $3)
        ORDER BY CASE WHEN leased_by IS NULL THEN 0 ELSE 1 END, ready_at - COALESCE(wait, 0) DESC LIMIT 1";
    KNOWN = "SELECT name FROM sources WHERE name = $1
        UNION ALL SELECT source FROM source_work WHERE source = $1";
    ANY_WAITING = "SELECT source FROM work_items WHERE state = 'waiting' AND source = $1 LIMIT 1";
    ANY_DEAD = "SELECT source FROM work_items
        WHERE state = 'dead' AND state <> 'waiting' AND source = $1 LIMIT 1";
    /// An item that was postponed recently and has not ended since.
    WAITS_FOR = "SELECT host, last_error, CASE WHEN leased_by IS NULL THEN ready_at END AS until FROM work_items
        WHERE state = 'waiting' AND source = $1 AND last_error LIKE $2 AND ready_at > {now} - $3
        ORDER BY ready_at DESC LIMIT 1";
    LAST_DEATH = "SELECT COALESCE(last_error, '') FROM work_items
        WHERE state = 'dead' AND state <> 'waiting' AND source = $1 ORDER BY finished_at DESC LIMIT 1";
}

fn work(row: &Row<'_>) -> Result<SourceWork, StoreError> {
    Ok(SourceWork {
        source: row.get("source")?,
        done: WorkDone {
            scanned: row.count("scanned")?,
            blobs: row.count("blobs")?,
            known_blobs: row.count("known_blobs")?,
            truncated: row.count("truncated")?,
            gone: row.count("gone")?,
            oldest_event_at: None,
        },
        shed: row.count("shed")?,
        refused: row.count("refused")?,
        last_unread: {
            let what: Option<String> = row.get("last_unread")?;
            what.zip(row.optional_time("unread_at")?)
        },
        lag: {
            let lag: Option<i64> = row.get("lag")?;
            // The forge's clock may be ahead of the database's.
            lag.map(|lag| Duration::from_micros(u64::try_from(lag).unwrap_or_default()))
        },
        scanned_at: row.optional_time("scanned_at")?,
        waiting: 0,
        oldest_waiting_at: None,
        dead: 0,
        last_death: None,
        failed: 0,
        last_failure: None,
        retrying: 0,
        last_retry: None,
        waits_for: None,
    })
}

/// Items of one source that wait, or were dead-lettered.
struct Left {
    source: String,
    waiting: u64,
    dead: u64,
    oldest: Option<Timestamp>,
    died_at: Option<Timestamp>,
    failed: u64,
    failed_at: Option<Timestamp>,
    retrying: u64,
}

fn left_of_source(row: &Row<'_>) -> Result<Left, StoreError> {
    Ok(Left {
        source: row.get("source")?,
        waiting: row.count("waiting")?,
        dead: row.count("dead")?,
        oldest: row.optional_time("oldest")?,
        died_at: row.optional_time("died_at")?,
        failed: row.count("failed")?,
        failed_at: row.optional_time("failed_at")?,
        retrying: row.count("retrying")?,
    })
}

impl Store {
    /// Returns what has been done and what remains for each source, sorted by name.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn source_work(&self) -> Result<Vec<SourceWork>, StoreError> {
        let mut read = self;
        let done = read.fetch(LIST, args![], work).await?;
        let left = args![
            format!("{TRIED_AGAIN}%"),
            micros(FAILED_BEFORE),
            format!("{NOTHING_TO_READ}%")
        ];
        let left = read.fetch(LEFT, left, left_of_source).await?;
        let done = done.into_iter().map(|work| (work.source.clone(), work));
        let mut by_name: BTreeMap<String, SourceWork> = done.collect();
        for left in left {
            let source = left.source;
            let work = by_name.entry(source.clone()).or_default();
            work.source.clone_from(&source);
            work.waiting += left.waiting;
            work.oldest_waiting_at = work.oldest_waiting_at.or(left.oldest);
            work.dead += left.dead;
            work.failed += left.failed;
            if left.waiting > 0 {
                work.waits_for = read.waits_for(&source).await?;
            }
            work.retrying += left.retrying;
            if left.retrying > 0 {
                work.last_retry = read.last_retry(&source).await?;
            }
            if left.failed_at > work.scanned_at {
                work.last_failure = read.last_failure(&source).await?;
            }
            if left.died_at > work.scanned_at {
                let why = read
                    .fetch_first(LAST_DEATH, args![source], one::text)
                    .await?;
                work.last_death = why;
            }
        }
        Ok(by_name.into_values().collect())
    }
}

impl Store {
    /// Returns whether the database knows a source of this name: it was polled, or has work that is done or left.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn knows_source(&self, name: &str) -> Result<bool, StoreError> {
        let mut read = self;
        // Items are looked through only if nothing else tells.
        for sql in [KNOWN, ANY_WAITING, ANY_DEAD] {
            let known = read.fetch_first(sql, args![name], one::text).await?;
            if known.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the reason for which the last try of an item failed that waits for the next one.
    async fn last_failure(&self, source: &str) -> Result<Option<String>, StoreError> {
        let mut read = self;
        let args = args![source, format!("{TRIED_AGAIN}%")];
        let why = read.fetch_first(LAST_FAILURE, args, one::text).await?;
        Ok(why.map(|why| why.strip_prefix(TRIED_AGAIN).unwrap_or(&why).to_owned()))
    }

    /// Returns the last try that failed of an item that waits.
    async fn last_retry(&self, source: &str) -> Result<Option<FailedTry>, StoreError> {
        let mut read = self;
        let args = args![
            source,
            format!("{TRIED_AGAIN}%"),
            format!("{NOTHING_TO_READ}%")
        ];
        let last = read.fetch_first(LAST_RETRY, args, |row| {
            let (repository, ref_name): (String, String) =
                (row.get("repository")?, row.get("ref_name")?);
            let why: String = row.get("last_error")?;
            let why = why.strip_prefix(TRIED_AGAIN).unwrap_or(&why);
            let why = why.strip_prefix(NOTHING_TO_READ).unwrap_or(why);
            let what = [&*repository, &*ref_name, why].into_iter();
            let what: Vec<&str> = what.filter(|part| !part.is_empty()).collect();
            Ok(FailedTry {
                what: what.join(", "),
                at: row.optional_time("failed_at")?,
            })
        });
        last.await
    }

    /// Returns the host that items of the source are waiting for.
    async fn waits_for(&self, source: &str) -> Result<Option<HostWait>, StoreError> {
        let mut read = self;
        let args = args![source, format!("{HOST_LEFT_ALONE}%"), micros(LATELY)];
        let waits = read.fetch_first(WAITS_FOR, args, |row| {
            let (host, why): (String, String) = (row.get("host")?, row.get("last_error")?);
            let why = why.strip_prefix(HOST_LEFT_ALONE).unwrap_or(&why);
            Ok(HostWait {
                host,
                why: why.to_owned(),
                until: row.optional_time("until")?,
            })
        });
        waits.await
    }
}

impl Tx {
    /// Adds to the totals of a source. Call this in the transaction that ends the items.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn add_work_done(&mut self, source: &str, done: WorkDone) -> Result<(), StoreError> {
        let WorkDone {
            scanned,
            blobs,
            known_blobs,
            truncated,
            gone,
            oldest_event_at,
        } = done;
        self.locks(Locks::Sources);
        let oldest = oldest_event_at.map_or(0, Timestamp::as_microsecond);
        let args = args![source, scanned, blobs, known_blobs, truncated, gone, oldest];
        self.execute(ADD, args).await.map(drop)
    }

    /// Records an example of what is left unread of a source, in words that are safe to be shown. Call this in the
    /// transaction that counts it.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn note_unread(&mut self, source: &str, what: &str) -> Result<(), StoreError> {
        self.locks(Locks::Sources);
        let args = args![source, what];
        self.execute(NOTE_UNREAD, args).await.map(drop)
    }

    /// Counts items of these sources as shed.
    pub(in crate::store) async fn count_shed(
        &mut self,
        sources: Vec<String>,
    ) -> Result<(), StoreError> {
        self.locks(Locks::Sources);
        for (source, count) in by_source(sources) {
            self.execute(ADD_SHED, args![source, count]).await?;
        }
        Ok(())
    }

    /// Reverts [`Tx::count_shed`] for items of these sources. The caller has changed their state in this transaction,
    /// so none is subtracted twice.
    pub(in crate::store) async fn uncount_shed(
        &mut self,
        sources: Vec<String>,
    ) -> Result<(), StoreError> {
        self.locks(Locks::Sources);
        for (source, count) in by_source(sources) {
            self.execute(TAKE_SHED, args![count, source]).await?;
        }
        Ok(())
    }

    /// Counts items of these sources as refused.
    pub(in crate::store) async fn count_refused(
        &mut self,
        counts: BTreeMap<&str, u64>,
    ) -> Result<(), StoreError> {
        self.locks(Locks::Sources);
        for (source, count) in counts {
            self.execute(ADD_REFUSED, args![source, count]).await?;
        }
        Ok(())
    }
}

/// Returns the number of times that each source occurs.
fn by_source(sources: Vec<String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for source in sources {
        *counts.entry(source).or_default() += 1;
    }
    counts
}
