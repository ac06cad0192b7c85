//! Occurrences, the places where keys were seen. Recording them opens and extends incidents.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::sql::{Arg, LIST_MAX, ROWS_MAX, Row, args, one, pad, runs, statements};
use super::super::keys::key::Key;
use super::super::log::entry::Place;
use super::super::{Read, Store, StoreError, Tx};
use super::IncidentStatus;

/// Maximum number of places stored per key. Anyone who has a leaked key can report it with ever new places; beyond this
/// number, only the count of sightings increases.
const OCCURRENCES_MAX: u64 = 10_000;

/// A place where a key was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Identifier of the key.
    pub key_id: Uuid,
    /// Place where the key was seen.
    pub place: Place,
    /// Time at which the key was first seen there.
    pub detected_at: Timestamp,
    /// Time at which the key was last seen there.
    pub last_seen_at: Timestamp,
    /// Number of times that the key was seen there.
    pub sightings: u64,
}

/// A sighting of a key, to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct NewSighting<'a> {
    pub(crate) key: &'a Key,
    pub(crate) place: Arc<Place>,
    pub(crate) detected_at: Timestamp,
}

impl NewSighting<'_> {
    /// Returns the identity of the occurrence: a hash of the key and the place.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let line = self.place.line.map(|line| line.to_string());
        let parts = [
            Some(&self.key.id.to_string()),
            Some(&self.place.source),
            self.place.url.as_ref(),
            self.place.repository.as_ref(),
            self.place.commit.as_ref(),
            self.place.path.as_ref(),
            line.as_ref(),
        ];
        for part in parts {
            // The lengths separate adjacent parts, and distinguish an absent part from an empty one.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(part.map_or("", |part| part.as_str()));
        }
        hash.finalize().into()
    }
}

macro_rules! occurrence_columns {
    () => {
        "id, key_id, source, url, repository, commit_id, path, line, detected_at, last_seen_at, \
         sightings"
    };
}

statements! {
    KNOWN = "SELECT fingerprint FROM occurrences WHERE fingerprint IN ({list:1})";
    COUNT = "SELECT key_id, COUNT(*) AS places FROM occurrences WHERE key_id IN ({list:1}) GROUP BY key_id";
    /// One incident per key, which is opened by the first sighting and extended by every other.
    INCIDENT = "INSERT INTO incidents (id, project, key_id, status, opened_at, last_seen_at,
            sightings, occurrences, uses)
        VALUES {rows:9}
        ON CONFLICT (key_id) DO UPDATE SET
            sightings = incidents.sightings + excluded.sightings,
            occurrences = incidents.occurrences + excluded.occurrences,
            last_seen_at = CASE WHEN incidents.last_seen_at < excluded.last_seen_at
                THEN excluded.last_seen_at ELSE incidents.last_seen_at END
        RETURNING key_id, id";
    OCCURRENCE = "INSERT INTO occurrences (id, fingerprint, key_id, incident_id, source, url,
            repository, commit_id, path, line, detected_at, last_seen_at, sightings)
        VALUES {rows:13}
        ON CONFLICT (fingerprint) DO UPDATE SET
            sightings = occurrences.sightings + excluded.sightings,
            last_seen_at = CASE WHEN occurrences.last_seen_at < excluded.last_seen_at
                THEN excluded.last_seen_at ELSE occurrences.last_seen_at END";
    OF_KEY = concat!(
        "SELECT ", occurrence_columns!(), " FROM occurrences WHERE key_id = $1
        ORDER BY detected_at, id LIMIT $2"
    );
}

fn occurrence(row: &Row<'_>) -> Result<Occurrence, StoreError> {
    Ok(Occurrence {
        id: row.uuid("id")?,
        key_id: row.uuid("key_id")?,
        place: Place {
            source: row.get("source")?,
            url: row.get("url")?,
            repository: row.get("repository")?,
            commit: row.get("commit_id")?,
            path: row.get("path")?,
            line: row.optional_count("line")?,
        },
        detected_at: row.time("detected_at")?,
        last_seen_at: row.time("last_seen_at")?,
        sightings: row.count("sightings")?,
    })
}

impl Store {
    /// Returns the places where a key was seen, in the order in which they were found, at most `limit`. Public keys
    /// have occurrences as well, if someone reported one.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn occurrences(&self, key: Uuid, limit: u32) -> Result<Vec<Occurrence>, StoreError> {
        let mut read = self;
        read.fetch(OF_KEY, args![key, limit], occurrence).await
    }
}

/// Sightings of one place within a batch.
struct SeenPlace<'a> {
    fingerprint: [u8; 32],
    first: &'a NewSighting<'a>,
    times: Times,
}

/// Number and times of the sightings of something within a batch.
#[derive(Debug, Clone, Copy)]
struct Times {
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

impl Times {
    fn once(at: Timestamp) -> Self {
        Self {
            first: at,
            last: at,
            count: 1,
        }
    }

    fn add(&mut self, at: Timestamp) {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        self.count += 1;
    }
}

impl Tx {
    /// Records sightings: a known place is seen again, a new one becomes an occurrence, and the incidents of secret
    /// keys are opened or extended. Returns the incidents by key. The keys must be locked.
    pub(crate) async fn add_sightings(
        &mut self,
        sightings: &[NewSighting<'_>],
    ) -> Result<HashMap<Uuid, Uuid>, StoreError> {
        // Occurrences and incidents belong to their key, so only a transaction that has locked the key adds any.
        self.locks(Locks::Incidents);
        let mut places = seen_places(sightings);
        let known = self.known_places(&places).await?;
        let room = self.room(&places, &known).await?;
        let mut new: HashMap<Uuid, u64> = HashMap::new();
        places.retain(|place| {
            let key = place.first.key.id;
            let count = new.entry(key).or_default();
            let is_new = !known.contains(&place.fingerprint);
            let kept = !is_new || room.get(&key).is_none_or(|room| *count < *room);
            *count += u64::from(is_new && kept);
            kept
        });
        let incidents = self.extend_incidents(sightings, &new).await?;
        for run in runs(places.len(), ROWS_MAX) {
            let rows = &places[run];
            let values = rows.iter().flat_map(|place| place.columns(&incidents));
            self.execute(OCCURRENCE.of(rows.len()), values.collect())
                .await?;
        }
        Ok(incidents)
    }

    async fn known_places(
        &mut self,
        places: &[SeenPlace<'_>],
    ) -> Result<HashSet<[u8; 32]>, StoreError> {
        let mut known = HashSet::new();
        for chunk in places.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().map(|place| place.fingerprint.into()).collect();
            let n = pad(&mut args, 0);
            known.extend(self.fetch(KNOWN.of(n), args, one::digest).await?);
        }
        Ok(known)
    }

    /// Returns the number of places that can be added, by key. Contains only keys with new places.
    async fn room(
        &mut self,
        places: &[SeenPlace<'_>],
        known: &HashSet<[u8; 32]>,
    ) -> Result<HashMap<Uuid, u64>, StoreError> {
        let new = places
            .iter()
            .filter(|place| !known.contains(&place.fingerprint));
        let mut keys: Vec<Uuid> = new.map(|place| place.first.key.id).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut room: HashMap<Uuid, u64> = keys.iter().map(|key| (*key, OCCURRENCES_MAX)).collect();
        for chunk in keys.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let counts = self.fetch(COUNT.of(n), args, |row| {
                Ok((row.uuid("key_id")?, row.count("places")?))
            });
            for (key, count) in counts.await? {
                room.insert(key, OCCURRENCES_MAX.saturating_sub(count));
            }
        }
        Ok(room)
    }

    /// Opens or extends the incidents of the secret keys. Returns all of them by key.
    async fn extend_incidents(
        &mut self,
        sightings: &[NewSighting<'_>],
        new_places: &HashMap<Uuid, u64>,
    ) -> Result<HashMap<Uuid, Uuid>, StoreError> {
        let mut seen: BTreeMap<Uuid, (&Key, Times)> = BTreeMap::new();
        for sighting in sightings.iter().filter(|sighting| !sighting.key.is_public) {
            let at = sighting.detected_at;
            seen.entry(sighting.key.id)
                .and_modify(|(_, times)| times.add(at))
                .or_insert_with(|| (sighting.key, Times::once(at)));
        }
        let seen: Vec<(&Key, Times)> = seen.into_values().collect();
        let mut incidents = HashMap::with_capacity(seen.len());
        for run in runs(seen.len(), ROWS_MAX) {
            let rows = &seen[run];
            let values = rows.iter().flat_map(|(key, times)| {
                args![
                    Uuid::now_v7(),
                    &key.project,
                    key.id,
                    IncidentStatus::Open.name(),
                    times.first,
                    times.last,
                    times.count,
                    new_places.get(&key.id).copied().unwrap_or(0),
                    0_u64,
                ]
            });
            let opened = self.fetch(INCIDENT.of(rows.len()), values.collect(), |row| {
                Ok((row.uuid("key_id")?, row.uuid("id")?))
            });
            incidents.extend(opened.await?);
        }
        Ok(incidents)
    }
}

/// Returns the places of a batch, each once, in the order of their first sightings.
fn seen_places<'a>(sightings: &'a [NewSighting<'a>]) -> Vec<SeenPlace<'a>> {
    let mut at: HashMap<[u8; 32], usize> = HashMap::with_capacity(sightings.len());
    let mut places: Vec<SeenPlace<'a>> = Vec::new();
    for sighting in sightings {
        let fingerprint = sighting.fingerprint();
        if let Some(place) = at.get(&fingerprint) {
            places[*place].times.add(sighting.detected_at);
        } else {
            at.insert(fingerprint, places.len());
            places.push(SeenPlace {
                fingerprint,
                first: sighting,
                times: Times::once(sighting.detected_at),
            });
        }
    }
    places
}

impl SeenPlace<'_> {
    fn columns(&self, incidents: &HashMap<Uuid, Uuid>) -> Vec<Arg> {
        let key = self.first.key.id;
        let place = &self.first.place;
        args![
            Uuid::now_v7(),
            self.fingerprint,
            key,
            incidents.get(&key).copied(),
            place.source.clone(),
            place.url.clone(),
            place.repository.clone(),
            place.commit.clone(),
            place.path.clone(),
            place.line,
            self.times.first,
            self.times.last,
            self.times.count,
        ]
    }
}
