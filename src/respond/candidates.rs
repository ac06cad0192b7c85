//! Candidates that have not been looked up in the key store yet.

mod places;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::Responder;
use super::clean::{CleanSighting, CleanSightings};
use super::known::{Known, PlacesPerValue};
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
    /// Sightings of known keys among the candidates that were looked up before.
    found: CleanSightings,
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
            found: CleanSightings::default(),
            looked_at: 0,
        }
    }

    /// Adds a place to which candidates can be added.
    pub fn place(&mut self, place: P) -> PlaceIndex {
        self.place_bytes += place.bytes();
        // There are at most as many places as candidates, and few of those.
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push(place);
        PlaceIndex(index)
    }

    /// Adds a candidate, unless it is known to be nobody's or was seen often enough. Returns whether it was added.
    pub fn add(&mut self, value: KeyValue, place: PlaceIndex, line: Option<Line>) -> bool {
        let is_wanted = self.counted.admits(value.sha256());
        if is_wanted {
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

    /// Looks up the candidates and sets the sightings of known keys aside.
    async fn sift(&mut self, store: &Store) -> Result<(), StoreError> {
        let known = self.known(store).await?;
        let mut found = std::mem::take(&mut self.found);
        self.looked_at = self.find(&known, &mut found).await;
        self.found = found;
        self.clear(&known);
        Ok(())
    }

    /// Returns the sightings of known keys, with those that were [sifted out](Responder::sift) before.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn ours(&self, store: &Store) -> Result<CleanSightings, StoreError> {
        let known = self.known(store).await?;
        let mut ours = self.found.clone();
        self.find(&known, &mut ours).await;
        Ok(ours)
    }

    /// Adds the sightings of `known` keys to `found`, and returns the size of the places of all that were found so far.
    /// Each place is searched for keys once, in turn with what others wrote, up to a bound.
    async fn find(&self, known: &Known, found: &mut CleanSightings) -> usize {
        let mut shared: HashMap<PlaceIndex, Rendered> = HashMap::new();
        let mut looked_at = self.looked_at;
        // Links of a message take turns.
        for seen in ours(&self.list, known) {
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
    /// Looks up candidates, so that there is room for more: the decoys of one author must not hide the keys of another.
    /// Sightings of known keys are set aside, and reported as soon as there are many. To report a key twice is
    /// harmless.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read or a change.
    pub async fn sift<P: Placed>(
        &self,
        candidates: &mut Candidates<P>,
        actor: &str,
    ) -> Result<(), StoreError> {
        candidates.sift(self.store()).await?;
        if candidates.found.len() >= MANY_FOUND {
            let found = std::mem::take(&mut candidates.found);
            self.report_clean(found, Reason::Leaked, actor).await?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::super::clean::{LOOKED_AT_MAX, NOT_LOOKED_AT};
    use super::*;
    use crate::store::Place;

    fn place(path: &str) -> SharedPlace {
        SharedPlace {
            place: Place {
                url: Some(format!("https://git.example/{path}")),
                path: Some(path.to_owned()),
                ..Place::of_source("feed")
            },
            fragment: Some("#L"),
        }
    }

    #[test]
    fn places_are_shared_and_repetitions_bounded() {
        let mut candidates = Candidates::new(Timestamp::UNIX_EPOCH, 200);
        let at = candidates.place(place("a"));
        for line in 1..=1000 {
            let line = Line {
                linked: line,
                recorded: Some(line),
            };
            candidates.add(KeyValue::new("same"), at, Some(line));
        }
        assert_eq!(candidates.len(), 100);
        assert!(!candidates.is_full());
        let known = Known::these([KeyValue::new("same").sha256()]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let last = candidates.sightings(&known, runtime.handle());
        let last = last.last().unwrap();
        assert_eq!(
            last.place.url.as_deref().unwrap(),
            "https://git.example/a#L100"
        );
        assert_eq!(last.place.line, Some(100));
        // It is unknown, and not looked up again.
        candidates.clear(&Known::default());
        let at = candidates.place(place("b"));
        candidates.add(KeyValue::new("same"), at, None);
        assert!(candidates.is_empty());
        candidates.add(KeyValue::new("other"), at, None);
        assert_eq!(candidates.len(), 1);
    }

    /// Whoever pushes decides how long and how costly the names are.
    #[test]
    fn no_more_than_a_bound_of_the_places_of_a_push_is_looked_at() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut candidates = Candidates::new(Timestamp::UNIX_EPOCH, 1_000);
        let long = "x".repeat(10_000);
        let mut looked_at = 0;
        for push in 0..4 {
            let keys: Vec<_> = (0..100)
                .map(|n| KeyValue::new(format!("{push}-{n}")))
                .collect();
            for key in &keys {
                let at = candidates.place(place(&long));
                candidates.add(key.clone(), at, None);
            }
            let known = Known::these(keys.iter().map(KeyValue::sha256));
            let seen: Vec<_> = candidates.sightings(&known, runtime.handle()).collect();
            assert_eq!(seen.len(), 100);
            let kept = |seen: &&CleanSighting| seen.place.url.as_deref() != Some(NOT_LOOKED_AT);
            looked_at += seen.iter().filter(kept).count() * long.len();
            candidates.clear(&known);
        }
        assert!(
            (LOOKED_AT_MAX / 3..=LOOKED_AT_MAX).contains(&looked_at),
            "{looked_at}"
        );
    }

    #[test]
    fn long_places_fill_it_too() {
        let mut candidates = Candidates::new(Timestamp::UNIX_EPOCH, 100);
        candidates.place(place(&"x".repeat(10_000)));
        assert!(candidates.is_full() && candidates.is_empty());
    }
}
