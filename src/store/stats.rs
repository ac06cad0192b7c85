//! Numbers of keys, incidents and entries of the log, counted by indexes that hold nothing else.

use jiff::{SignedDuration, Timestamp};

use super::db::sql::{Arg, Row, Sql, args, statements};
use super::{Action, IncidentStatus, PepperUse, Read as _, Store, StoreError};

/// Maximum number of groups of keys that are told one by one.
const GROUPS_MAX: u32 = 1000;

/// Time that counts as lately.
const LATELY: SignedDuration = SignedDuration::from_hours(24);

/// Groups are those of the index, in its order, so that nothing is sorted but them; the largest come first. Revocation
/// takes precedence over expiry, as in [`Key::why_invalid`](super::Key::why_invalid).
macro_rules! keys {
    ($where:literal) => {
        concat!(
            "SELECT project, format, COUNT(*) AS number, COUNT(revoked_at) AS revoked,
                COUNT(CASE WHEN revoked_at IS NULL
                    AND ((exposed_at IS NOT NULL AND NOT is_public) OR expires_at <= $1) THEN 1 END) AS expired,
                CAST(SUM(COUNT(*)) OVER () AS BIGINT) AS total
            FROM keys",
            $where,
            " GROUP BY project, format ORDER BY number DESC, project, format LIMIT $2"
        )
    };
}

/// Counts the rows of a table by a word, and those that are later than `$1`.
macro_rules! by_word {
    ($table:literal, $word:literal, $time:literal, $where:literal) => {
        concat!(
            "SELECT ",
            $word,
            " AS name, COUNT(*) AS number, COUNT(CASE WHEN ",
            $time,
            " >= $1 THEN 1 END) AS lately FROM ",
            $table,
            $where,
            " GROUP BY ",
            $word
        )
    };
}

statements! {
    KEYS = keys!("");
    KEYS_OF = keys!(" WHERE project = $3");
    INCIDENTS = by_word!("incidents", "status", "opened_at", "");
    INCIDENTS_OF = by_word!("incidents", "status", "opened_at", " WHERE project = $2");
    ENTRIES = by_word!("revocation_log", "action", "at", "");
    ENTRIES_OF = by_word!("revocation_log", "action", "at", " WHERE project = $2");
}

/// Number of keys of one project and format, by their state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCount {
    /// Project of the keys.
    pub project: String,
    /// Identifier of their format.
    pub format: String,
    /// Number of keys that are accepted.
    pub valid: u64,
    /// Number of keys whose time of expiry has come, or that leaked after it, and that were not revoked.
    pub expired: u64,
    /// Number of keys that were revoked.
    pub revoked: u64,
}

/// Number of things of one kind, in all and of the last 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<K> {
    /// Kind of the things.
    pub kind: K,
    /// Number of them.
    pub number: u64,
    /// Number of those of the last 24 hours.
    pub lately: u64,
}

/// Numbers of what a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Time at which the counting began.
    pub at: Timestamp,
    /// Number of all keys.
    pub keys: u64,
    /// The largest groups of keys, at most a thousand.
    pub groups: Vec<KeyCount>,
    /// Number of incidents by their status.
    pub incidents: Vec<Count<IncidentStatus>>,
    /// Number of entries of the revocation log by their action.
    pub entries: Vec<Count<Action>>,
    /// Keys and access tokens by what they stand under. Empty for a single project, as projects share the peppers.
    pub peppers: Vec<PepperUse>,
}

impl Store {
    /// Counts what is in the database at `now`, of one project or of all.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn stats(&self, project: Option<&str>, now: Timestamp) -> Result<Stats, StoreError> {
        let since = now.saturating_sub(LATELY).unwrap_or(Timestamp::MIN);
        let of = |all: Sql, one: Sql, mut args: Vec<Arg>| match project {
            None => (all, args),
            Some(project) => {
                args.extend(args![project]);
                (one, args)
            }
        };
        let mut read = self;
        let (sql, args) = of(KEYS, KEYS_OF, args![now, GROUPS_MAX]);
        let found = read.fetch(sql, args, |row| Ok((group(row)?, row.count("total")?)));
        let found = found.await?;
        let keys = found.first().map_or(0, |(_, total)| *total);
        let (sql, args) = of(INCIDENTS, INCIDENTS_OF, args![since]);
        let incidents = read.fetch(sql, args, |row| count(row, IncidentStatus::by_name));
        let incidents = incidents.await?;
        let (sql, args) = of(ENTRIES, ENTRIES_OF, args![since]);
        let entries = read.fetch(sql, args, |row| count(row, Action::by_name));
        let entries = entries.await?;
        let peppers = match project {
            None => self.pepper_uses().await?,
            Some(_) => Vec::new(),
        };
        Ok(Stats {
            at: now,
            keys,
            groups: found.into_iter().map(|(group, _)| group).collect(),
            incidents,
            entries,
            peppers,
        })
    }
}

fn group(row: &Row<'_>) -> Result<KeyCount, StoreError> {
    let (all, expired, revoked) = (
        row.count("number")?,
        row.count("expired")?,
        row.count("revoked")?,
    );
    Ok(KeyCount {
        project: row.get("project")?,
        format: row.get("format")?,
        valid: all.saturating_sub(expired + revoked),
        expired,
        revoked,
    })
}

fn count<K>(row: &Row<'_>, by_name: fn(&str) -> Option<K>) -> Result<Count<K>, StoreError> {
    Ok(Count {
        kind: row.word("name", by_name)?,
        number: row.count("number")?,
        lately: row.count("lately")?,
    })
}
