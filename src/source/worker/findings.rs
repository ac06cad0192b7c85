//! Candidates of one work item, as sightings.

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::clean::CleanBlobs;
use super::place::{Places, TextPlace};
use crate::fetch::{ObjectId, Text, TextKind};
use crate::keyformat::KeyValue;
use crate::respond::{Candidates, Line, PlaceIndex, Responder, Sighting};
use crate::scan::{Candidate, Engine, Scanner};
use crate::store::{Reason, StoreError};

/// Candidates that are held before they are looked up.
const MAX_HELD: usize = 4096;

/// Sightings of keys of ours that are held before they are reported, in the middle of an item if need be.
/// Reporting them twice does no harm.
const MAX_SIGHTINGS: usize = 128;

/// The most candidates of one item that are looked up. What is more is counted: nobody has so many keys, and
/// each look-up is work for the database.
const MAX_LOOKUPS: usize = 200_000;

/// Size of a text, in bytes, from which on it can take so long to scan that it is asked meanwhile whether others wait.
const LONG: usize = 256 << 10;

/// Who is told of what is found, from a thread that blocks.
#[derive(Clone, Copy)]
pub(super) struct Reporter<'a> {
    pub(super) responder: &'a Responder,
    pub(super) actor: &'a str,
    pub(super) runtime: &'a Handle,
}

/// What was found in the texts of one work item.
pub(super) struct Findings<'a> {
    scanner: Scanner<'a>,
    clean: &'a CleanBlobs,
    places: &'a Places,
    found: Found<'a>,
    /// Blobs scanned, or known.
    pub(super) blobs: u64,
    /// Of those, blobs that were scanned before and hold no candidate.
    pub(super) known_blobs: u64,
    /// Blobs that were scanned now and hold no candidate.
    pub(super) clean_blobs: Vec<ObjectId>,
    /// Bytes looked at.
    pub(super) bytes: u64,
}

/// What is done about candidates.
struct Found<'a> {
    reporter: Reporter<'a>,
    candidates: Candidates<TextPlace<'a>>,
    sightings: Vec<Sighting>,
    looked_up: usize,
    not_looked_up: u64,
    failed: Option<StoreError>,
}

/// What an item amounts to.
pub(super) struct Outcome {
    /// Keys of ours that were not reported yet.
    pub(super) sightings: Vec<Sighting>,
    /// Candidates beyond [`MAX_LOOKUPS`].
    pub(super) not_looked_up: u64,
    /// Whether all others could be looked up, and reported where need be.
    pub(super) reported: Result<(), StoreError>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        clean: &'a CleanBlobs,
        places: &'a Places,
        reporter: Reporter<'a>,
        now: Timestamp,
    ) -> Self {
        Self {
            scanner: Scanner::new(engine),
            clean,
            places,
            found: Found {
                reporter,
                candidates: Candidates::new(now, MAX_HELD),
                sightings: Vec::new(),
                looked_up: 0,
                not_looked_up: 0,
                failed: None,
            },
            blobs: 0,
            known_blobs: 0,
            clean_blobs: Vec::new(),
            bytes: 0,
        }
    }

    /// Scans a text, and its path. After a failure there is nothing to be done but to end.
    pub(super) fn look_at(&mut self, text: &Text<'_>) {
        if self.found.failed.is_some() {
            return;
        }
        let is_blob = text.kind == TextKind::Blob;
        self.blobs += u64::from(is_blob);
        self.bytes += text.data.len() as u64;
        if is_blob && self.clean.contains(&text.id) {
            self.known_blobs += 1;
        } else {
            self.look_inside(text);
        }
        if let Some(path) = text.path {
            let mut place = None;
            let (found, places) = (&mut self.found, self.places);
            self.scanner.scan_text(path, &mut |candidate| {
                // Links to a file go to its first line.
                let line = Line {
                    linked: 1,
                    recorded: None,
                };
                found.add(candidate.value, line, &mut place, places, text);
            });
        }
    }

    fn look_inside(&mut self, text: &Text<'_>) {
        let mut any = false;
        let mut place = None;
        let (found, places) = (&mut self.found, self.places);
        let mut add = |candidate: Candidate| {
            any = true;
            // Lines of a commit or tree are not lines that anybody can look up.
            let recorded = (text.kind == TextKind::Blob).then_some(candidate.line);
            let line = Line {
                linked: candidate.line,
                recorded,
            };
            found.add(candidate.value, line, &mut place, places, text);
        };
        let read = if text.data.len() > LONG {
            self.scanner.scan(&mut text.reader(), &mut add)
        } else {
            self.scanner.scan_text(text.data, &mut add);
            Ok(0)
        };
        if !any && read.is_ok() && text.kind == TextKind::Blob {
            self.clean.add_of(&mut self.clean_blobs, text.id);
        }
    }

    /// What it amounts to in the end.
    pub(super) fn finish(&mut self) -> Outcome {
        self.found.look_up();
        Outcome {
            sightings: std::mem::take(&mut self.found.sightings),
            not_looked_up: self.found.not_looked_up,
            reported: self.found.failed.take().map_or(Ok(()), Err),
        }
    }
}

impl<'a> Found<'a> {
    /// Adds a candidate of `text`. The first one of a text makes its place, which all share.
    fn add(
        &mut self,
        value: KeyValue,
        line: Line,
        place: &mut Option<PlaceIndex>,
        places: &'a Places,
        text: &Text<'_>,
    ) {
        if self.failed.is_some() {
            return;
        }
        if self.looked_up + self.candidates.len() >= MAX_LOOKUPS {
            self.not_looked_up += 1;
            return;
        }
        let index = *place.get_or_insert_with(|| self.candidates.place(places.of(text)));
        self.candidates.add(value, index, Some(line));
        if self.candidates.is_full() {
            self.look_up();
            *place = None;
        }
    }

    /// Finds out which candidates are keys of ours.
    fn look_up(&mut self) {
        self.looked_up += self.candidates.len();
        if let Err(error) = self.try_look_up() {
            self.failed.get_or_insert(error);
        }
    }

    fn try_look_up(&mut self) -> Result<(), StoreError> {
        let Reporter {
            responder,
            actor,
            runtime,
        } = self.reporter;
        let known = runtime.block_on(self.candidates.known(responder.store()))?;
        for sighting in self.candidates.sightings(&known) {
            self.sightings.push(sighting);
            if self.sightings.len() >= MAX_SIGHTINGS {
                let sightings = std::mem::take(&mut self.sightings);
                let report = responder.report(sightings, Reason::Leaked, actor);
                runtime.block_on(report)?;
            }
        }
        self.candidates.clear(&known);
        Ok(())
    }
}
