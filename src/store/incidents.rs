//! Incidents, one per leaked key, and the occurrences that they consist of.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::entry::Place;
use super::keys::{Key, key, key_columns};
use super::page::{Conditions, Page, PageRequest, anywhere, position};
use super::sql::{Arg, Fields, LIST_MAX, Sql, args, one, pad, runs, statements};
use super::{Read, Store, StoreError, Tx};

/// Rows of one statement.
const ROWS_MAX: usize = 128;

/// The most places kept of one key. Whoever holds a leaked key can report it with ever new places;
/// beyond this only the count of sightings goes up.
pub(super) const OCCURRENCES_MAX: u64 = 10_000;

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

/// One place where a key was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// A version 7 UUID.
    pub id: Uuid,
    /// The key.
    pub key_id: Uuid,
    /// The place.
    pub place: Place,
    /// When the key was first seen there.
    pub detected_at: Timestamp,
    /// When the key was last seen there.
    pub last_seen_at: Timestamp,
    /// How many times the key was seen there.
    pub sightings: u64,
}

/// A sighting of a key, to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct NewOccurrence {
    pub(crate) key_id: Uuid,
    pub(crate) incident_id: Option<Uuid>,
    pub(crate) place: Place,
    pub(crate) detected_at: Timestamp,
}

impl NewOccurrence {
    /// What makes two sightings the same occurrence: the key and the place.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let line = self.place.line.map(|line| line.to_string());
        let parts = [
            Some(&self.key_id.to_string()),
            Some(&self.place.source),
            self.place.url.as_ref(),
            self.place.repository.as_ref(),
            self.place.commit.as_ref(),
            self.place.path.as_ref(),
            line.as_ref(),
        ];
        for part in parts {
            // Lengths keep neighbouring parts apart, and an absent part from an empty one.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(part.map_or("", |part| part.as_str()));
        }
        hash.finalize().into()
    }
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

macro_rules! occurrence_columns {
    () => {
        "id, key_id, source, url, repository, commit_id, path, line, detected_at, last_seen_at, \
         sightings"
    };
}

statements! {
    BY_ID = concat!(incident_columns!(), " WHERE i.id = $1");
    BY_KEY = concat!(incident_columns!(), " WHERE i.key_id = $1");
    OF_KEYS = "SELECT key_id, id FROM incidents WHERE key_id IN ({list:1})";
    OPEN = "INSERT INTO incidents (id, project, key_id, status, opened_at, last_seen_at, sightings,
            occurrences, uses)
        VALUES {rows:9}";
    EXTEND = "UPDATE incidents SET sightings = sightings + $1, occurrences = occurrences + $2,
            last_seen_at = CASE WHEN last_seen_at < $3 THEN $3 ELSE last_seen_at END
        WHERE id = $4";
    KNOWN = "SELECT fingerprint FROM occurrences WHERE fingerprint IN ({list:1})";
    SEEN_AGAIN = "UPDATE occurrences SET sightings = sightings + $1,
            last_seen_at = CASE WHEN last_seen_at < $2 THEN $2 ELSE last_seen_at END
        WHERE fingerprint = $3";
    INSERT = "INSERT INTO occurrences (id, fingerprint, key_id, incident_id, source, url, repository,
            commit_id, path, line, detected_at, last_seen_at, sightings)
        VALUES {rows:13}";
    COUNT_OF_KEY = "SELECT COUNT(*) FROM occurrences WHERE key_id = $1";
    OF_KEY = concat!(
        "SELECT ", occurrence_columns!(), " FROM occurrences WHERE key_id = $1
        ORDER BY detected_at, id LIMIT $2"
    );
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

fn occurrence(row: &mut Fields<'_>) -> Result<Occurrence, StoreError> {
    Ok(Occurrence {
        id: row.uuid()?,
        key_id: row.uuid()?,
        place: Place {
            source: row.next()?,
            url: row.next()?,
            repository: row.next()?,
            commit: row.next()?,
            path: row.next()?,
            line: row.optional_count()?,
        },
        detected_at: row.time()?,
        last_seen_at: row.time()?,
        sightings: row.count()?,
    })
}

fn list(filter: &IncidentFilter, request: &PageRequest) -> Result<(Sql, Vec<Arg>), StoreError> {
    let mut conditions = Conditions::new();
    if let Some(project) = &filter.project {
        conditions.and("i.project = ?", args![project]);
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

    /// The places where a key was seen, in the order in which they were found, at most `limit`. Public
    /// keys have occurrences too, where somebody reported one.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn occurrences(&self, key: Uuid, limit: u32) -> Result<Vec<Occurrence>, StoreError> {
        let mut read = self;
        read.fetch(OF_KEY, args![key, limit], occurrence).await
    }
}

/// What the sightings of a batch add to an incident.
#[derive(Debug, Clone)]
pub(crate) struct IncidentUpdate {
    pub(crate) key_id: Uuid,
    pub(crate) project: String,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_seen: Timestamp,
    pub(crate) sightings: u64,
}

impl Tx {
    /// Opens the incidents that the keys do not have yet; gives all by key, each with the number of
    /// its occurrences so far. The keys must be locked.
    pub(crate) async fn open_incidents(
        &mut self,
        updates: &[IncidentUpdate],
    ) -> Result<HashMap<Uuid, Uuid>, StoreError> {
        let mut incidents = HashMap::with_capacity(updates.len());
        for chunk in updates.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().map(|update| update.key_id.into()).collect();
            let n = pad(&mut args, 0);
            let rows = self
                .fetch(OF_KEYS.of(n), args, |row| Ok((row.uuid()?, row.uuid()?)))
                .await?;
            incidents.extend(rows);
        }
        let missing: Vec<&IncidentUpdate> = updates
            .iter()
            .filter(|update| !incidents.contains_key(&update.key_id))
            .collect();
        for run in runs(missing.len(), ROWS_MAX) {
            let rows = &missing[run];
            let mut values = Vec::with_capacity(rows.len() * 9);
            for update in rows {
                let id = Uuid::now_v7();
                incidents.insert(update.key_id, id);
                values.extend(args![
                    id,
                    &update.project,
                    update.key_id,
                    IncidentStatus::Open.as_str(),
                    update.first_seen,
                    update.first_seen,
                    0_u64,
                    0_u64,
                    0_u64,
                ]);
            }
            self.execute(OPEN.of(rows.len()), values).await?;
        }
        Ok(incidents)
    }

    /// The incident of a key, if it has one.
    pub(crate) async fn incident_id_of(&mut self, key: Uuid) -> Result<Option<Uuid>, StoreError> {
        let row = self.fetch_first(OF_KEYS.of(1), args![key], |row| {
            Ok((row.uuid()?, row.uuid()?))
        });
        Ok(row.await?.map(|(_, incident)| incident))
    }

    /// Adds a batch's sightings to an incident.
    pub(crate) async fn extend_incident(
        &mut self,
        id: Uuid,
        update: &IncidentUpdate,
        new_places: u64,
    ) -> Result<(), StoreError> {
        let args = args![update.sightings, new_places, update.last_seen, id];
        self.execute(EXTEND, args).await.map(drop)
    }

    /// Records sightings: a place that is known is seen again, a new one becomes an occurrence. Gives
    /// the number of new occurrences by key. The keys must be locked.
    pub(crate) async fn add_occurrences(
        &mut self,
        sightings: &[NewOccurrence],
    ) -> Result<HashMap<Uuid, u64>, StoreError> {
        let mut places: HashMap<[u8; 32], SeenPlace<'_>> = HashMap::with_capacity(sightings.len());
        let mut order = Vec::new();
        for sighting in sightings {
            let print = sighting.fingerprint();
            let place = places.entry(print).or_insert_with(|| {
                order.push(print);
                SeenPlace::new(sighting)
            });
            place.add(sighting.detected_at);
        }
        let known = self.known_places(&order).await?;
        for print in order.iter().filter(|print| known.contains(*print)) {
            let place = &places[print];
            let args = args![place.sightings, place.last, *print];
            self.execute(SEEN_AGAIN, args).await?;
        }
        order.retain(|print| !known.contains(print));
        let mut new: Vec<_> = order.iter().map(|print| (*print, &places[print])).collect();
        let counts = self.keep_to_the_limit(&mut new).await?;
        for run in runs(new.len(), ROWS_MAX) {
            let rows = &new[run];
            let values = rows.iter().flat_map(|(print, place)| place.columns(*print));
            self.execute(INSERT.of(rows.len()), values.collect())
                .await?;
        }
        Ok(counts)
    }

    async fn known_places(&mut self, prints: &[[u8; 32]]) -> Result<HashSet<[u8; 32]>, StoreError> {
        let mut known = HashSet::new();
        for chunk in prints.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            known.extend(self.fetch(KNOWN.of(n), args, one::digest).await?);
        }
        Ok(known)
    }

    /// Drops the places beyond what is kept of one key; gives the number of those left by key.
    async fn keep_to_the_limit(
        &mut self,
        new: &mut Vec<([u8; 32], &SeenPlace<'_>)>,
    ) -> Result<HashMap<Uuid, u64>, StoreError> {
        let mut room = HashMap::new();
        for (_, place) in &*new {
            let key = place.first.key_id;
            if room.contains_key(&key) {
                continue;
            }
            let stored = self.fetch_first(COUNT_OF_KEY, args![key], one::count);
            let left = OCCURRENCES_MAX.saturating_sub(stored.await?.unwrap_or(0));
            room.insert(key, left);
        }
        let mut counts: HashMap<Uuid, u64> = HashMap::new();
        new.retain(|(_, place)| {
            let key = place.first.key_id;
            let count = counts.entry(key).or_default();
            let fits = *count < room.get(&key).copied().unwrap_or(0);
            *count += u64::from(fits);
            fits
        });
        Ok(counts)
    }
}

/// The sightings of one place within a batch.
struct SeenPlace<'a> {
    first: &'a NewOccurrence,
    earliest: Timestamp,
    last: Timestamp,
    sightings: u64,
}

impl<'a> SeenPlace<'a> {
    fn new(first: &'a NewOccurrence) -> Self {
        Self {
            first,
            earliest: first.detected_at,
            last: first.detected_at,
            sightings: 0,
        }
    }

    fn add(&mut self, at: Timestamp) {
        self.earliest = self.earliest.min(at);
        self.last = self.last.max(at);
        self.sightings += 1;
    }

    fn columns(&self, fingerprint: [u8; 32]) -> Vec<Arg> {
        let place = self.first.place.clone();
        args![
            Uuid::now_v7(),
            fingerprint,
            self.first.key_id,
            self.first.incident_id,
            place.source,
            place.url,
            place.repository,
            place.commit,
            place.path,
            place.line,
            self.earliest,
            self.last,
            self.sightings,
        ]
    }
}
