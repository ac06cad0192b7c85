//! Verification of the log in the database: the chain, and the data around it.

use jiff::Timestamp;

use super::super::db::sql::{Row, args, statements};
use super::super::{Read, Store, StoreError};
use super::chain::{Broken, Chain, Problem, Verified, unread};
use super::entry::{Action, LogEntry, printable};
use super::{LogHead, StoredEntry};

statements! {
    /// Joined with the current state of the entry's key and incident.
    VERIFY = "SELECT l.seq, l.at, l.action, l.reason, l.key_id, l.incident_id, l.prev_hash, l.hash, l.entry,
            l.project, k.project AS key_project, k.format, k.owner_type, k.owner_id, k.last_four, k.revoked_at,
            i.project AS incident_project, i.key_id AS incident_key
        FROM revocation_log l LEFT JOIN keys k ON k.id = l.key_id
            LEFT JOIN incidents i ON i.id = l.incident_id
        WHERE l.seq > $1 ORDER BY l.seq LIMIT $2";
}

/// Number of entries that are read and verified at a time. Verifying them takes some 10 ms of a thread that serves
/// requests.
const BATCH: u32 = 250;

impl StoredEntry {
    /// Verifies the row as the next one of the chain. Returns its entry.
    fn verify(&self, chain: &mut Chain) -> Result<LogEntry, Problem> {
        let entry: LogEntry = self
            .line()
            .and_then(|line| serde_json::from_str(&line).map_err(|error| unread(&error)))
            .map_err(Problem::NotAnEntry)?;
        // The text itself is what was hashed, so a change of its formatting is noticed as well.
        chain.link(&entry, &self.text)?;
        let columns = [
            ("seq", self.seq == entry.seq),
            ("at", self.at == entry.at),
            ("action", self.action == entry.action.name()),
            ("reason", self.reason == entry.reason.name()),
            ("key_id", self.key_id == entry.key_id),
            ("incident_id", self.incident_id == entry.incident_id),
        ];
        match columns.into_iter().find(|(_, agrees)| !agrees) {
            Some((column, _)) => Err(Problem::Column(column)),
            None => Ok(entry),
        }
    }
}

/// Project of a log row, and the current state of the entry's key and incident. No entry contains the project, so no
/// hash protects it; but it is stored in several places, and a key never changes its project.
struct Surroundings {
    project: String,
    key_project: Option<String>,
    format: Option<String>,
    owner_type: Option<String>,
    owner_id: Option<String>,
    last_four: Option<String>,
    revoked_at: Option<Timestamp>,
    incident_project: Option<String>,
    incident_key: Option<String>,
}

impl Surroundings {
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            project: row.get("project")?,
            key_project: row.get("key_project")?,
            format: row.get("format")?,
            owner_type: row.get("owner_type")?,
            owner_id: row.get("owner_id")?,
            last_four: row.get("last_four")?,
            revoked_at: row.optional_time("revoked_at")?,
            incident_project: row.get("incident_project")?,
            incident_key: row.get("incident_key")?,
        })
    }

    /// Checks that these columns agree with each other and with the entry.
    fn verify(&self, entry: &LogEntry) -> Result<(), Problem> {
        const KEY: &str = "keys.project";
        const ENTRY: &str = "the entry";
        let project = Some(&self.project);
        let key_id = entry.key_id.to_string();
        let has_incident = entry.incident_id.is_some();
        let owner = self.owner_id.as_deref().map(printable);
        let is = |column: &Option<String>, word: &str| column.as_deref() == Some(word);
        let columns = [
            (
                "revocation_log.project",
                KEY,
                project == self.key_project.as_ref(),
            ),
            (
                "incidents.project",
                KEY,
                !has_incident || self.incident_project == self.key_project,
            ),
            (
                "incidents.key_id",
                ENTRY,
                !has_incident || is(&self.incident_key, &key_id),
            ),
            ("keys.format", ENTRY, is(&self.format, &entry.format)),
            (
                "keys.owner_type",
                ENTRY,
                is(&self.owner_type, entry.owner_type.name()),
            ),
            (
                "keys.owner_id",
                ENTRY,
                // Redaction of a key in it, or truncation, left this mark.
                entry.owner_id.contains('…') || is(&owner, &entry.owner_id),
            ),
            (
                "keys.last_four",
                ENTRY,
                is(&self.last_four, &entry.last_four),
            ),
            (
                "keys.revoked_at",
                ENTRY,
                entry.action != Action::Revoked || self.revoked_at == Some(entry.at),
            ),
        ];
        match columns.into_iter().find(|(.., agrees)| !agrees) {
            Some((column, from, _)) => Err(Problem::Differs { column, from }),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Verifies the whole log in the database: the hash and link of every entry, the columns beside it, that its key
    /// and incident agree with it and belong to the same project, and that the log ends at the recorded head. Entries
    /// may be appended meanwhile.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read. The inner result is an error if the log is broken, and names the first bad
    /// entry.
    pub async fn verify_log(&self) -> Result<Result<Verified, Broken>, StoreError> {
        let mut chain = Chain::new();
        let mut read = self;
        loop {
            let at = chain.verified();
            // The semaphore is never closed. Turns are given in the order in which they are asked for.
            let turn = self.0.log_turns.acquire().await.ok();
            let rows = read
                .fetch(VERIFY, args![at.entries, BATCH], |row| {
                    Ok((StoredEntry::read(row)?, Surroundings::read(row)?))
                })
                .await?;
            for (row, surroundings) in &rows {
                let position = chain.verified().entries + 1;
                let verified = row.verify(&mut chain);
                if let Err(problem) = verified.and_then(|entry| surroundings.verify(&entry)) {
                    let seq = Some(row.seq);
                    return Ok(Err(Broken {
                        position,
                        seq,
                        problem,
                    }));
                }
            }
            drop(turn);
            if !rows.is_empty() {
                // Hashing has kept this thread from everything else.
                tokio::task::yield_now().await;
                continue;
            }
            let LogHead { seq, hash } = self.log_head().await?;
            let appended = seq > at.entries && self.log_entry(at.entries + 1).await?.is_some();
            if appended {
                continue;
            }
            if seq == at.entries && hash == at.head {
                return Ok(Ok(at));
            }
            return Ok(Err(Broken {
                position: at.entries,
                seq: None,
                problem: Problem::Head { seq, hash },
            }));
        }
    }
}
