//! Revocation log in the database: appending, listing and exporting.

pub(super) mod canonical;
pub(super) mod chain;
pub(super) mod entry;
pub(super) mod verify;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::db::order::Locks;
use super::db::page::{Conditions, Page, PageRequest};
use super::db::sql::{Arg, ROWS_MAX, Row, Sql, args, runs, statements};
use super::keys::key::{Key, micros};
use super::{Read, Store, StoreError, Tx};
use chain::{GENESIS, entry_hash, unread};
use entry::{Action, LogEntry, Place, Reason};

/// Number of those that read and check a batch of the whole log at a time. More of them would only keep the connections
/// and the processors from everybody else.
pub(super) const TURNS: usize = 2;

/// Draft of an entry of the revocation log.
#[derive(Debug, Clone)]
pub(crate) struct LogDraft {
    /// Time of the action.
    pub(crate) at: Timestamp,
    /// Action on the key.
    pub(crate) action: Action,
    /// Key, as it was at that time.
    pub(crate) key: Key,
    /// Reason for the action.
    pub(crate) reason: Reason,
    /// Policy that decided. `None` if a person did.
    pub(crate) policy: Option<String>,
    /// Originator of the action.
    pub(crate) actor: String,
    /// Incident of the key.
    pub(crate) incident_id: Option<Uuid>,
    /// Place where the key was seen.
    pub(crate) occurrence: Option<Place>,
    /// Time at which it was seen.
    pub(crate) detected_at: Option<Timestamp>,
}

impl LogDraft {
    fn entry(&self, seq: u64, prev_hash: &str) -> (LogEntry, String) {
        let mut entry = LogEntry {
            seq,
            at: micros(self.at),
            action: self.action,
            key_id: self.key.id,
            format: self.key.format.clone(),
            owner_type: self.key.owner.kind,
            owner_id: self.key.owner.id.clone(),
            last_four: self.key.last_four.clone(),
            description: self.key.description.clone(),
            reason: self.reason,
            policy: self.policy.clone(),
            actor: self.actor.clone(),
            incident_id: self.incident_id,
            occurrence: self.occurrence.clone(),
            detected_at: self.detected_at.map(micros),
            prev_hash: prev_hash.to_owned(),
            hash: String::new(),
        };
        let canonical = entry.canonical();
        entry.hash = entry_hash(prev_hash, &canonical);
        (entry, canonical)
    }
}

/// Head of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// Number of the last entry, or 0 if there is none.
    pub seq: u64,
    /// Hash of the last entry, or 64 zeros if there is none.
    pub hash: String,
}

/// Filter of a list of log entries.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Project of the keys.
    pub project: Option<String>,
    /// Identifier of the key.
    pub key_id: Option<Uuid>,
    /// Action of the entries.
    pub action: Option<Action>,
    /// Reason of the entries.
    pub reason: Option<Reason>,
    /// Earliest time of the action, inclusive.
    pub since: Option<Timestamp>,
    /// Latest time of the action, exclusive.
    pub until: Option<Timestamp>,
}

macro_rules! log_columns {
    () => {
        "seq, at, action, reason, key_id, incident_id, prev_hash, hash, entry"
    };
}

statements! {
    LOCK_HEAD = "SELECT seq, hash FROM log_head WHERE id = 1 {for update}";
    HEAD = "SELECT seq, hash FROM log_head WHERE id = 1";
    MOVE_HEAD = "UPDATE log_head SET seq = $1, hash = $2 WHERE id = 1 AND seq = $3";
    INSERT = "INSERT INTO revocation_log (seq, project, at, action, reason, key_id, incident_id,
            prev_hash, hash, entry)
        VALUES {rows:10}";
    AFTER = concat!(
        "SELECT ", log_columns!(), " FROM revocation_log WHERE seq > $1 ORDER BY seq LIMIT $2"
    );
    BY_SEQ = concat!("SELECT ", log_columns!(), " FROM revocation_log WHERE seq = $1");
    OF_KEY = concat!(
        "SELECT ", log_columns!(), " FROM revocation_log WHERE key_id = $1 ORDER BY seq LIMIT $2"
    );
}

/// A row of the log: the text of the entry and the columns beside it.
pub(super) struct StoredEntry {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) action: String,
    pub(super) reason: String,
    pub(super) key_id: Uuid,
    pub(super) incident_id: Option<Uuid>,
    prev_hash: String,
    hash: String,
    pub(super) text: String,
}

impl StoredEntry {
    pub(super) fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.number("seq")?,
            at: row.time("at")?,
            action: row.get("action")?,
            reason: row.get("reason")?,
            key_id: row.uuid("key_id")?,
            incident_id: row.optional_uuid("incident_id")?,
            prev_hash: row.get("prev_hash")?,
            hash: row.get("hash")?,
            text: row.get("entry")?,
        })
    }

    /// Returns the entry as it is exported: its text with the two hashes added.
    pub(super) fn line(&self) -> Result<String, String> {
        let mut value: Value = serde_json::from_str(&self.text).map_err(|error| unread(&error))?;
        let Value::Object(members) = &mut value else {
            return Err("it is no JSON object".to_owned());
        };
        members.insert("prev_hash".to_owned(), self.prev_hash.clone().into());
        members.insert("hash".to_owned(), self.hash.clone().into());
        Ok(value.to_string())
    }

    fn entry(&self) -> Result<LogEntry, StoreError> {
        self.line()
            .and_then(|line| serde_json::from_str(&line).map_err(|error| unread(&error)))
            .map_err(|cause| StoreError::row(format!("entry {} of the log: {cause}", self.seq)))
    }
}

fn list(filter: &LogFilter, request: &PageRequest) -> Result<(Sql, Vec<Arg>), StoreError> {
    let mut conditions = Conditions::new();
    if let Some(project) = &filter.project {
        conditions.and("project = ?", args![project]);
    }
    if let Some(key_id) = filter.key_id {
        conditions.and("key_id = ?", args![key_id]);
    }
    if let Some(action) = filter.action {
        conditions.and("action = ?", args![action.name()]);
    }
    if let Some(reason) = filter.reason {
        conditions.and("reason = ?", args![reason.name()]);
    }
    if let Some(since) = filter.since {
        conditions.and("at >= ?", args![since]);
    }
    if let Some(until) = filter.until {
        conditions.and("at < ?", args![until]);
    }
    if let Some(seq) = request.after_number()? {
        conditions.and("seq < ?", args![seq]);
    }
    Ok(conditions.finish(
        concat!("SELECT ", log_columns!(), " FROM revocation_log"),
        "ORDER BY seq DESC",
        request.fetch(),
    ))
}

/// Returns the list with every condition, for [`Store::check_statements`].
pub(super) fn every_filter() -> (&'static str, Sql) {
    let filter = LogFilter {
        project: Some(String::new()),
        key_id: Some(Uuid::nil()),
        action: Some(Action::Revoked),
        reason: Some(Reason::Leaked),
        since: Some(Timestamp::UNIX_EPOCH),
        until: Some(Timestamp::UNIX_EPOCH),
    };
    let (sql, _) = list(&filter, &PageRequest::sample_number()).unwrap_or((HEAD, Vec::new()));
    ("LIST_LOG", sql)
}

fn head(row: &Row<'_>) -> Result<LogHead, StoreError> {
    Ok(LogHead {
        seq: row.number("seq")?,
        hash: row.get("hash")?,
    })
}

impl Store {
    /// Returns the entries of the revocation log that match a filter, newest first.
    ///
    /// # Errors
    /// Returns [`StoreError::Cursor`], or any [`StoreError`] of a read.
    pub async fn list_log(
        &self,
        filter: &LogFilter,
        request: &PageRequest,
    ) -> Result<Page<LogEntry>, StoreError> {
        let (sql, args) = list(filter, request)?;
        let mut read = self;
        let entries = read
            .fetch(sql, args, |row| StoredEntry::read(row)?.entry())
            .await?;
        Ok(request.page(entries, |entry| entry.seq.to_string()))
    }

    /// Returns the entries after number `seq`, oldest first, at most `limit`. An export starts with 0 and continues
    /// until there are none.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn log_after(&self, seq: u64, limit: u32) -> Result<Vec<LogEntry>, StoreError> {
        let _turn = self.0.log_turns.acquire().await;
        let mut read = self;
        read.fetch(AFTER, args![seq, limit], |row| {
            StoredEntry::read(row)?.entry()
        })
        .await
    }

    /// Returns the entry with this number.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn log_entry(&self, seq: u64) -> Result<Option<LogEntry>, StoreError> {
        let mut read = self;
        read.fetch_first(BY_SEQ, args![seq], |row| StoredEntry::read(row)?.entry())
            .await
    }

    /// Returns the entries about a key, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn log_of_key(&self, key: Uuid, limit: u32) -> Result<Vec<LogEntry>, StoreError> {
        let mut read = self;
        read.fetch(OF_KEY, args![key, limit], |row| {
            StoredEntry::read(row)?.entry()
        })
        .await
    }

    /// Returns the recorded head of the chain.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn log_head(&self) -> Result<LogHead, StoreError> {
        let mut read = self;
        let head = read.fetch_first(HEAD, args![], head).await?;
        head.ok_or_else(|| headless(self.name()))
    }
}

/// Returns the error for a database whose row of `log_head` somebody deleted.
fn headless(database: &str) -> StoreError {
    StoreError::Forbidden {
        database: database.to_owned(),
        cause: "the row of log_head was deleted".to_owned(),
        remedy: format!(
            "bring it back: INSERT INTO log_head (id, seq, hash) SELECT 1, COALESCE(MAX(seq), 0), COALESCE((SELECT hash \
             FROM revocation_log ORDER BY seq DESC LIMIT 1), '{GENESIS}') FROM revocation_log"
        ),
    }
}

impl Tx {
    /// Appends entries to the revocation log and returns them as written. Call this last in a transaction, since the
    /// row of the head is locked until its end.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub(crate) async fn append_log(
        &mut self,
        drafts: &[LogDraft],
    ) -> Result<Vec<LogEntry>, StoreError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        self.locks(Locks::LogHead);
        let Some(start) = self.fetch_first(LOCK_HEAD, args![], head).await? else {
            return Err(headless(self.store.name()));
        };
        let mut end = start.clone();
        let mut entries = Vec::with_capacity(drafts.len());
        for run in runs(drafts.len(), ROWS_MAX) {
            let drafts = &drafts[run];
            let mut values = Vec::with_capacity(drafts.len() * 10);
            for draft in drafts {
                let (entry, canonical) = draft.entry(end.seq + 1, &end.hash);
                end.seq = entry.seq;
                end.hash.clone_from(&entry.hash);
                values.extend(columns(&draft.key.project, &entry, canonical));
                entries.push(entry);
            }
            self.execute(INSERT.of(drafts.len()), values).await?;
        }
        let moved = self
            .execute(MOVE_HEAD, args![end.seq, end.hash, start.seq])
            .await?;
        if moved == 1 {
            Ok(entries)
        } else {
            Err(StoreError::Conflict {
                database: self.store.name().to_owned(),
                cause: "the revocation log was appended to meanwhile".to_owned(),
            })
        }
    }
}

fn columns(project: &str, entry: &LogEntry, canonical: String) -> Vec<Arg> {
    args![
        entry.seq,
        project,
        entry.at,
        entry.action.name(),
        entry.reason.name(),
        entry.key_id,
        entry.incident_id,
        &entry.prev_hash,
        &entry.hash,
        canonical,
    ]
}
