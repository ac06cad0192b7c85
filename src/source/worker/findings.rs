//! Candidates of one work item, as sightings.

use std::collections::HashMap;

use jiff::Timestamp;

use super::clean::CleanBlobs;
use super::place::Places;
use crate::fetch::{ObjectId, Text, TextKind};
use crate::keyformat::Sha256Digest;
use crate::respond::Sighting;
use crate::scan::{Candidate, Engine};
use crate::store::Place;

/// How many places of one and the same candidate are kept for one work item. More say nothing new, and a
/// file of a million copies must not become a million rows.
const PLACES_PER_VALUE: u32 = 100;

/// How many different candidates are counted before counting starts anew.
const MAX_COUNTED: usize = 100_000;

/// What was found in the texts of one work item.
pub(super) struct Findings<'a> {
    engine: &'a Engine,
    clean: &'a CleanBlobs,
    places: &'a Places,
    now: Timestamp,
    counted: HashMap<Sha256Digest, u32>,
    sightings: Vec<Sighting>,
    /// Blobs scanned, or known.
    pub(super) blobs: u64,
    /// Of those, blobs that were scanned before and hold no candidate.
    pub(super) known_blobs: u64,
    /// Blobs that were scanned now and hold no candidate.
    pub(super) clean_blobs: Vec<ObjectId>,
    /// Bytes looked at.
    pub(super) bytes: u64,
}

impl<'a> Findings<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        clean: &'a CleanBlobs,
        places: &'a Places,
        now: Timestamp,
    ) -> Self {
        Self {
            engine,
            clean,
            places,
            now,
            counted: HashMap::new(),
            sightings: Vec::new(),
            blobs: 0,
            known_blobs: 0,
            clean_blobs: Vec::new(),
            bytes: 0,
        }
    }

    /// Scans a text, and its path.
    pub(super) fn look_at(&mut self, text: &Text<'_>) {
        let is_blob = text.kind == TextKind::Blob;
        self.blobs += u64::from(is_blob);
        self.bytes += text.data.len() as u64;
        if is_blob && self.clean.contains(&text.id) {
            self.known_blobs += 1;
        } else {
            self.look_inside(text);
        }
        if let Some(path) = text.path {
            for candidate in self.engine.scan(path) {
                self.add(candidate, self.places.of_name(text));
            }
        }
    }

    fn look_inside(&mut self, text: &Text<'_>) {
        let candidates = self.engine.scan(text.data);
        if candidates.is_empty() && text.kind == TextKind::Blob {
            self.clean.add_of(&mut self.clean_blobs, text.id);
        }
        for candidate in candidates {
            let place = self.places.of(text, candidate.line);
            self.add(candidate, place);
        }
    }

    fn add(&mut self, candidate: Candidate, place: Place) {
        if self.counted.len() >= MAX_COUNTED {
            self.counted.clear();
        }
        let count = self.counted.entry(candidate.value.sha256()).or_default();
        *count += 1;
        if *count <= PLACES_PER_VALUE {
            self.sightings.push(Sighting {
                value: candidate.value,
                place,
                detected_at: self.now,
            });
        }
    }

    /// How many sightings are held.
    pub(super) fn len(&self) -> usize {
        self.sightings.len()
    }

    /// Gives the sightings away.
    pub(super) fn take(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.sightings)
    }
}
