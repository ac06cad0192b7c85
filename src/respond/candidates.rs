//! Candidates that have not been looked up in the key store yet.

mod places;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::Responder;
use super::clean::{CleanSighting, CleanSightings};
use super::known::{Known, PlacesPerValue};
use super::turns::Turn;
use crate::keyformat::KeyValue;
use crate::store::{Reason, Store, StoreError};
pub use places::{Line, Placed, SharedPlace};
use places::{Rendered, rendered};

/// Maximum number of places stored per candidate.
const PLACES_PER_VALUE: u32 = 100;

/// Number of distinct candidates after which the counts are reset: as many as fit into a table of 600 kB.
const MAX_COUNTED: usize = 14_336;

/// Number of sightings of known keys at which they are reported before more are gathered.
pub const MANY_FOUND: usize = 256;

/// Budget for the places of candidates, in bytes per candidate.
const BYTES_EACH: usize = 128;

/// Candidates, and the places that they share.
///
/// Most candidates are unknown to the key store, and whoever pushes them determines their number and the length of
/// their places' names. A place is therefore held once per text, and a [`CleanSighting`] is created only for a known
/// key.
#[derive(Debug)]
pub struct Candidates<P = SharedPlace> {
    detected_at: Timestamp,
    max: usize,
    places: Vec<P>,
    place_bytes: usize,
    list: Vec<Seen>,
    counted: PlacesPerValue,
    /// Size of the places of known keys whose texts were searched for keys, in bytes.
    looked_at: usize,
}

/// Index of a place in [`Candidates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlaceIndex(u32);

#[derive(Debug)]
struct Seen {
    value: KeyValue,
    place: PlaceIndex,
    line: Option<Line>,
}

impl<P: Placed> Default for Candidates<P> {
    /// Creates an empty collection without capacity: it must be looked up after every candidate.
    fn default() -> Self {
        Self::new(Timestamp::UNIX_EPOCH, 0)
    }
}

impl<P: Placed> Candidates<P> {
    /// Creates an empty collection for candidates detected at `detected_at`. It is full at about `max` candidates.
    pub fn new(detected_at: Timestamp, max: usize) -> Self {
        Self {
            detected_at,
            max,
            places: Vec::new(),
            place_bytes: 0,
            list: Vec::new(),
            counted: PlacesPerValue::new(PLACES_PER_VALUE, MAX_COUNTED),
            looked_at: 0,
        }
    }

    /// Adds a place to which candidates can be added.
    pub fn place(&mut self, place: P) -> PlaceIndex {
        self.place_bytes += place.bytes();
        self.places.push(place);
        index(self.places.len() - 1)
    }

    /// Adds a candidate, unless it is known to be nobody's or was seen often enough. Returns whether it was added: only
    /// then `place` is called, so that places of candidates that are not added take no room.
    pub fn add(
        &mut self,
        value: KeyValue,
        place: impl FnOnce(&mut Self) -> PlaceIndex,
        line: Option<Line>,
    ) -> bool {
        let is_wanted = self.counted.admits(value.sha256());
        if is_wanted {
            let place = place(self);
            self.list.push(Seen { value, place, line });
        }
        is_wanted
    }

    /// Returns whether the candidates should be looked up before more are added.
    pub fn is_full(&self) -> bool {
        self.list.len() >= self.max || self.place_bytes >= self.max * BYTES_EACH
    }

    /// Returns the number of candidates held.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether no candidates are held.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Looks up which of the candidates are ours.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn known(&self, store: &Store) -> Result<Known, StoreError> {
        Known::of(store, self.list.iter().map(|seen| seen.value.sha256())).await
    }

    /// Returns the `known` candidates as sightings, each with its own place. The iterator is lazy, since there may
    /// be many. Each place is searched for keys once, in turn with what others wrote, up to a bound. Blocks the thread.
    pub fn sightings(
        &mut self,
        known: &Known,
        runtime: &Handle,
    ) -> impl Iterator<Item = CleanSighting> {
        let Self {
            detected_at,
            places,
            list,
            looked_at,
            ..
        } = self;
        // Candidates of the same place were added in a row: one place is held at a time, however many there are.
        let mut last: Option<(PlaceIndex, Rendered)> = None;
        ours(list, known).map(move |seen| {
            let shared = match last.take() {
                Some((at, shared)) if at == seen.place => shared,
                _ => {
                    let place = &places[seen.place.0 as usize];
                    runtime.block_on(rendered(place, looked_at))
                }
            };
            let sighting = seen.at(&shared, *detected_at, known);
            last = Some((seen.place, shared));
            sighting
        })
    }

    /// Returns the size of what is held, as a number of candidates.
    pub fn size(&self) -> usize {
        self.list.len().max(self.place_bytes / BYTES_EACH)
    }

    /// Adds all candidates of another collection that was not looked up, or of which only [ours](Self::retain_ours) are
    /// left.
    pub fn append(&mut self, other: Self) {
        let before = self.places.len();
        self.place_bytes += other.place_bytes;
        self.places.extend(other.places);
        for seen in other.list {
            if self.counted.admits(seen.value.sha256()) {
                self.list.push(Seen {
                    place: index(before + seen.place.0 as usize),
                    ..seen
                });
            }
        }
    }

    /// Looks up the candidates and drops all but the first of each value of which a leak would do harm, and of these all
    /// but the first `most`. A message may name a few keys very often, or many that are revoked already.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn retain_first(&mut self, store: &Store, most: usize) -> Result<(), StoreError> {
        let known = self.known(store).await?;
        let mut seen = HashSet::new();
        self.list.retain(|candidate| {
            let digest = candidate.value.sha256();
            known.is_at_risk(&digest) && seen.len() < most && seen.insert(digest)
        });
        self.drop_places();
        Ok(())
    }

    /// Looks up the candidates and drops those that are nobody's. Returns the number of those that are left.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn retain_ours(&mut self, store: &Store) -> Result<usize, StoreError> {
        let known = self.known(store).await?;
        let Self { list, counted, .. } = self;
        list.retain(|seen| {
            let digest = seen.value.sha256();
            let is_ours = known.contains(&digest);
            if !is_ours {
                counted.exclude(&digest);
            }
            is_ours
        });
        self.drop_places();
        Ok(self.list.len())
    }

    /// Drops the first `count` candidates, or all if there are fewer. Returns their number.
    pub fn drop_first(&mut self, count: usize) -> usize {
        let count = count.min(self.list.len());
        self.list.drain(..count);
        self.drop_places();
        count
    }

    /// Drops places without a candidate.
    fn drop_places(&mut self) {
        let places = std::mem::take(&mut self.places).into_iter();
        let mut places: Vec<Option<P>> = places.map(Some).collect();
        let mut moved: HashMap<PlaceIndex, PlaceIndex> = HashMap::new();
        let mut list = std::mem::take(&mut self.list);
        self.place_bytes = 0;
        for seen in &mut list {
            if let Some(place) = places[seen.place.0 as usize].take() {
                moved.insert(seen.place, self.place(place));
            }
            seen.place = moved[&seen.place];
        }
        self.list = list;
    }

    /// Looks up the candidates, and takes the sightings of known keys out. There is room for others then.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn take_ours(&mut self, store: &Store) -> Result<CleanSightings, StoreError> {
        let known = self.known(store).await?;
        let mut found = CleanSightings::default();
        let sought = self.find(&self.list, &known, self.looked_at, &mut found);
        self.looked_at = sought.await;
        self.clear(&known);
        Ok(found)
    }

    /// Adds the sightings of `known` keys in `list` to `found`, and returns the size of the places of all that were
    /// found so far. Each place is searched for keys once, in turn with what others wrote, up to a bound.
    async fn find(
        &self,
        list: &[Seen],
        known: &Known,
        mut looked_at: usize,
        found: &mut CleanSightings,
    ) -> usize {
        let mut shared: HashMap<PlaceIndex, Rendered> = HashMap::new();
        // Links of a message take turns.
        for seen in ours(list, known) {
            if let Entry::Vacant(entry) = shared.entry(seen.place) {
                let place = &self.places[seen.place.0 as usize];
                entry.insert(rendered(place, &mut looked_at).await);
            }
            found.push(seen.at(&shared[&seen.place], self.detected_at, known));
        }
        looked_at
    }

    /// Drops all candidates. Those that are not `known` will not be added again.
    pub fn clear(&mut self, known: &Known) {
        for seen in self.list.drain(..) {
            let digest = seen.value.sha256();
            if !known.contains(&digest) {
                self.counted.exclude(&digest);
            }
        }
        self.places = Vec::new();
        self.place_bytes = 0;
    }
}

impl Responder {
    /// Reports those of the candidates of one message that are ours. Few sightings are made of them at a time, and
    /// written down when it is the turn of the message.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read or a change. To report them again is harmless.
    pub async fn report_candidates<P: Placed>(
        &self,
        candidates: &Candidates<P>,
        actor: &str,
    ) -> Result<(), StoreError> {
        let known = candidates.known(self.store()).await?;
        let (mut looked_at, turn) = (0, &mut Turn::default());
        for list in candidates.list.chunks(MANY_FOUND) {
            let mut found = CleanSightings::default();
            let sought = candidates.find(list, &known, looked_at, &mut found);
            looked_at = sought.await;
            self.report_piece(found, Reason::Leaked, actor, turn)
                .await?;
        }
        Ok(())
    }
}

fn index(of: usize) -> PlaceIndex {
    // There are at most as many places as candidates, and few of those.
    PlaceIndex(u32::try_from(of).unwrap_or(u32::MAX))
}

/// Returns the `known` ones of the candidates.
fn ours<'c>(list: &'c [Seen], known: &Known) -> impl Iterator<Item = &'c Seen> {
    let list = list.iter();
    list.filter(move |seen| known.contains(&seen.value.sha256()))
}

impl Seen {
    /// Returns the sighting of the candidate, which is one of the `known`, at its place.
    fn at(&self, rendered: &Rendered, detected_at: Timestamp, known: &Known) -> CleanSighting {
        let place = match self.line {
            Some(line) => Arc::new(rendered.at(line)),
            None => Arc::clone(&rendered.stored),
        };
        CleanSighting::new(self.value.clone(), place, detected_at).of(known)
    }
}
