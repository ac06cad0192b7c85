//! Incidents: one per leaked key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::key::Key;
use super::keys::{key, key_columns};
use super::page::{Conditions, Page, PageRequest, anywhere, position};
use super::sql::{Arg, Fields, Sql, args, one, statements};
use super::{Read, Store, StoreError, Tx};

/// How far an incident has been worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentStatus {
    /// Nobody has looked at it yet.
    Open,
}

impl IncidentStatus {
    /// The status's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
        }
    }

    /// Reads a status's word.
    pub fn parse(text: &str) -> Option<Self> {
        (text == Self::Open.as_str()).then_some(Self::Open)
    }
}

/// A key of ours that leaked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// A version 7 UUID.
    pub id: Uuid,
    /// How far it has been worked on.
    pub status: IncidentStatus,
    /// When the key was first seen.
    pub opened_at: Timestamp,
    /// When the key was last seen.
    pub last_seen_at: Timestamp,
    /// How many times the key was seen, repeated sightings of one place included.
    pub sightings: u64,
    /// At how many places the key was seen.
    pub occurrences: u64,
    /// How many times the key was checked after it had been seen in public.
    pub uses: u64,
    /// The key.
    pub key: Key,
}

/// Which incidents are listed.
#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    /// Of keys of this project only.
    pub project: Option<String>,
    /// With this status only.
    pub status: Option<IncidentStatus>,
    /// Of keys of this format only.
    pub format: Option<String>,
    /// With an occurrence from this source only.
    pub source: Option<String>,
    /// Of keys of the owner with this identifier only.
    pub owner: Option<String>,
    /// With this text in the key's description, owner or last four characters, or in a repository's
    /// name. Small and capital letters are the same; outside ASCII only on PostgreSQL.
    pub q: Option<String>,
    /// Opened at this time or later.
    pub since: Option<Timestamp>,
    /// Opened before this time.
    pub until: Option<Timestamp>,
}

macro_rules! incident_columns {
    () => {
        concat!(
            "SELECT i.id, i.status, i.opened_at, i.last_seen_at, i.sightings, i.occurrences, i.uses, ",
            key_columns!(),
            " FROM incidents i JOIN keys k ON k.id = i.key_id"
        )
    };
}

statements! {
    BY_ID = concat!(incident_columns!(), " WHERE i.id = $1");
    BY_KEY = concat!(incident_columns!(), " WHERE i.key_id = $1");
    ID_OF_KEY = "SELECT id FROM incidents WHERE key_id = $1";
}

fn incident(row: &mut Fields<'_>) -> Result<Incident, StoreError> {
    Ok(Incident {
        id: row.uuid()?,
        status: row.word(IncidentStatus::parse)?,
        opened_at: row.time()?,
        last_seen_at: row.time()?,
        sightings: row.count()?,
        occurrences: row.count()?,
        uses: row.count()?,
        key: key(row)?,
    })
}

fn list(filter: &IncidentFilter, request: &PageRequest) -> Result<(Sql, Vec<Arg>), StoreError> {
    let mut conditions = Conditions::new();
    if let Some(project) = &filter.project {
        // The key's own project decides, so that nothing else can.
        conditions.and("k.project = ?", args![project]);
    }
    if let Some(status) = filter.status {
        conditions.and("i.status = ?", args![status.as_str()]);
    }
    if let Some(format) = &filter.format {
        conditions.and("k.format = ?", args![format]);
    }
    if let Some(source) = &filter.source {
        let seen =
            "EXISTS (SELECT 1 FROM occurrences o WHERE o.key_id = i.key_id AND o.source = ?)";
        conditions.and(seen, args![source]);
    }
    if let Some(owner) = &filter.owner {
        conditions.and("k.owner_id = ?", args![owner]);
    }
    if let Some(q) = &filter.q {
        let contains = r"(LOWER(k.description) LIKE ? ESCAPE '\' OR LOWER(k.owner_id) LIKE ? ESCAPE '\'
            OR LOWER(k.last_four) LIKE ? ESCAPE '\' OR EXISTS (SELECT 1 FROM occurrences o
            WHERE o.key_id = i.key_id AND LOWER(o.repository) LIKE ? ESCAPE '\'))";
        conditions.and(contains, args![anywhere(&q.to_lowercase())]);
    }
    if let Some(since) = filter.since {
        conditions.and("i.opened_at >= ?", args![since]);
    }
    if let Some(until) = filter.until {
        conditions.and("i.opened_at < ?", args![until]);
    }
    if let Some((at, id)) = request.after()? {
        conditions.and("(i.opened_at, i.id) < (?, ?)", args![at, id]);
    }
    Ok(conditions.finish(
        incident_columns!(),
        "ORDER BY i.opened_at DESC, i.id DESC",
        request.fetch(),
    ))
}

/// The list with every condition, for [`Store::check_statements`].
pub(super) fn every_filter() -> (&'static str, Sql) {
    let text = || Some(String::new());
    let filter = IncidentFilter {
        project: text(),
        status: Some(IncidentStatus::Open),
        format: text(),
        source: text(),
        owner: text(),
        q: text(),
        since: Some(Timestamp::UNIX_EPOCH),
        until: Some(Timestamp::UNIX_EPOCH),
    };
    let (sql, _) = list(&filter, &PageRequest::sample()).unwrap_or((BY_ID, Vec::new()));
    ("LIST_INCIDENTS", sql)
}

impl Store {
    /// The incident with this identifier.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn incident(&self, id: Uuid) -> Result<Option<Incident>, StoreError> {
        let mut read = self;
        read.fetch_first(BY_ID, args![id], incident).await
    }

    /// The incident of a key.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn incident_of_key(&self, key: Uuid) -> Result<Option<Incident>, StoreError> {
        let mut read = self;
        read.fetch_first(BY_KEY, args![key], incident).await
    }

    /// Incidents, newest first.
    ///
    /// # Errors
    /// [`StoreError::Cursor`], and any [`StoreError`] of a read.
    pub async fn list_incidents(
        &self,
        filter: &IncidentFilter,
        request: &PageRequest,
    ) -> Result<Page<Incident>, StoreError> {
        let (sql, args) = list(filter, request)?;
        let mut read = self;
        let incidents = read.fetch(sql, args, incident).await?;
        Ok(request.page(incidents, |incident| {
            position(incident.opened_at, incident.id)
        }))
    }
}

impl Tx {
    /// The incident of a key, if it has one.
    pub(crate) async fn incident_id_of(&mut self, key: Uuid) -> Result<Option<Uuid>, StoreError> {
        self.fetch_first(ID_OF_KEY, args![key], one::uuid).await
    }
}
