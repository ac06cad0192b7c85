//! Incidents, one per leaked key.

pub(super) mod occurrences;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::db::page::{Conditions, Page, PageRequest, anywhere, position};
use super::db::sql::{Arg, Row, Sql, args, one, statements};
use super::keys::key::Key;
use super::keys::{key, key_columns};
use super::{Read, Store, StoreError, Tx};

named! {
    /// Progress of the work on an incident.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum IncidentStatus {
        /// No one has examined the incident yet.
        Open = "open",
    }
}

/// A leak of a known key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Progress of the work on it.
    pub status: IncidentStatus,
    /// Time at which the key was first seen.
    pub opened_at: Timestamp,
    /// Time at which the key was last seen.
    pub last_seen_at: Timestamp,
    /// Number of times that the key was seen, including repeated sightings of one place.
    pub sightings: u64,
    /// Number of places at which the key was seen.
    pub occurrences: u64,
    /// Number of times that the key was checked after it had been seen in public.
    pub uses: u64,
    /// The key that leaked.
    pub key: Key,
}

/// Filter of a list of incidents.
#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    /// Project of the keys.
    pub project: Option<String>,
    /// Status of the incidents.
    pub status: Option<IncidentStatus>,
    /// Key format of the keys.
    pub format: Option<String>,
    /// Source of at least one of the first 500 occurrences.
    pub source: Option<String>,
    /// Identifier of the owner of the keys.
    pub owner: Option<String>,
    /// Text contained in the description, owner or last four characters of the key, or in the name of a repository of
    /// the first 500 occurrences. Case-insensitive; outside ASCII only on PostgreSQL.
    pub q: Option<String>,
    /// Earliest time of opening, inclusive.
    pub since: Option<Timestamp>,
    /// Latest time of opening, exclusive.
    pub until: Option<Timestamp>,
}

/// Condition that one of the first places of an incident meets. Anybody who holds a leaked key can add places to it,
/// and PostgreSQL, if it looked through all of them, may read those of all projects once per incident. The order and
/// the limit have it read the index of the key's places, whatever its statistics say. The limit is the number of places
/// that the detailed view shows.
macro_rules! some_place {
    ($condition:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM (SELECT o.source, o.repository FROM occurrences o WHERE o.key_id = i.key_id
                ORDER BY o.detected_at, o.id LIMIT 500) AS places WHERE ",
            $condition,
            ")"
        )
    };
}

macro_rules! incident_columns {
    () => {
        concat!(
            "SELECT i.id AS incident_id, i.status, i.opened_at, i.last_seen_at, i.sightings, i.occurrences, i.uses, ",
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

fn incident(row: &Row<'_>) -> Result<Incident, StoreError> {
    Ok(Incident {
        id: row.uuid("incident_id")?,
        status: row.word("status", IncidentStatus::by_name)?,
        opened_at: row.time("opened_at")?,
        last_seen_at: row.time("last_seen_at")?,
        sightings: row.count("sightings")?,
        occurrences: row.count("occurrences")?,
        uses: row.count("uses")?,
        key: key(row)?,
    })
}

fn list(filter: &IncidentFilter, request: &PageRequest) -> Result<(Sql, Vec<Arg>), StoreError> {
    let mut conditions = Conditions::new();
    if let Some(project) = &filter.project {
        // The project of the key itself decides, so that nothing else can.
        conditions.and("k.project = ?", args![project]);
    }
    if let Some(status) = filter.status {
        conditions.and("i.status = ?", args![status.name()]);
    }
    if let Some(format) = &filter.format {
        conditions.and("k.format = ?", args![format]);
    }
    if let Some(source) = &filter.source {
        conditions.and(some_place!("places.source = ?"), args![source]);
    }
    if let Some(owner) = &filter.owner {
        conditions.and("k.owner_id = ?", args![owner]);
    }
    if let Some(q) = &filter.q {
        let contains = concat!(
            r"(LOWER(k.description) LIKE ? ESCAPE '\' OR LOWER(k.owner_id) LIKE ? ESCAPE '\'
            OR LOWER(k.last_four) LIKE ? ESCAPE '\' OR ",
            some_place!(r"LOWER(places.repository) LIKE ? ESCAPE '\'"),
            ")"
        );
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

/// Returns the list with every condition, for [`Store::check_statements`].
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
    /// Returns the incident with this identifier.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn incident(&self, id: Uuid) -> Result<Option<Incident>, StoreError> {
        let mut read = self;
        read.fetch_first(BY_ID, args![id], incident).await
    }

    /// Returns the incident of a key.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn incident_of_key(&self, key: Uuid) -> Result<Option<Incident>, StoreError> {
        let mut read = self;
        read.fetch_first(BY_KEY, args![key], incident).await
    }

    /// Returns the incidents that match a filter, newest first.
    ///
    /// # Errors
    /// Returns [`StoreError::Cursor`], or any [`StoreError`] of a read.
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
    /// Returns the identifier of the incident of a key, if it has one.
    pub(crate) async fn incident_id_of(&mut self, key: Uuid) -> Result<Option<Uuid>, StoreError> {
        self.fetch_first(ID_OF_KEY, args![key], one::uuid).await
    }
}
