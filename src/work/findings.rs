//! Collection of the candidates of one work item, and their conversion to sightings.

use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::clean_blobs::CleanBlobs;
use super::place::{Places, TextPlace};
use crate::fetch::{ObjectId, Text, TextKind};
use crate::keyformat::KeyValue;
use crate::respond::{Candidates, CleanSightings, LITTLE, Line, PlaceIndex, Responder};
use crate::scan::{Candidate, Engine, Scanner};
use crate::store::{Reason, StoreError};

/// Number of candidates at which they are looked up.
const MAX_HELD: usize = 4096;

/// Time after which the candidates at hand are looked up and the keys among them reported, although more of the item is
/// to be read: a large push takes a while.
const EARLY: Duration = Duration::from_secs(1);

/// Maximum number of candidates that are looked up per item. The excess is counted: nobody has so many keys, and each
/// lookup costs the database.
const MAX_LOOKUPS: usize = 200_000;

/// Size of a text, in bytes, above which scanning it may take so long that the demand for the place is checked
/// meanwhile.
const LONG: usize = 256 << 10;

/// Context for reporting findings from a blocking thread.
#[derive(Clone, Copy)]
pub(super) struct Reporter<'a> {
    pub(super) responder: &'a Responder,
    pub(super) actor: &'a str,
    pub(super) runtime: &'a Handle,
}

impl Reporter<'_> {
    /// Reports the sightings, and keeps them if that fails.
    fn report(&self, sightings: &mut CleanSightings) -> Result<(), StoreError> {
        if !sightings.is_empty() {
            let report = self
                .responder
                .report_clean(sightings.clone(), Reason::Leaked, self.actor);
            self.runtime.block_on(report)?;
            sightings.clear();
        }
        Ok(())
    }
}

/// Findings in the texts of one work item.
pub(super) struct Findings<'a> {
    scanner: Scanner<'a>,
    clean: &'a CleanBlobs,
    places: &'a Places,
    found: Found<'a>,
    /// Number of blobs, scanned or known.
    pub(super) blobs: u64,
    /// Number of those blobs that were skipped, since they were scanned before and hold no candidate.
    pub(super) known_blobs: u64,
    /// Blobs that were scanned now and hold no candidate.
    pub(super) clean_blobs: Vec<ObjectId>,
    /// Size of all texts, in bytes.
    pub(super) bytes: u64,
}

/// Candidates, and the results of looking them up.
struct Found<'a> {
    reporter: Reporter<'a>,
    candidates: Candidates<TextPlace<'a>>,
    sightings: CleanSightings,
    looked_up: usize,
    not_looked_up: u64,
    /// Time of the last look-up.
    looked_up_at: Instant,
    /// `true` once the database failed before all of the item was read. The findings so far are reported at its end.
    is_late: bool,
    failed: Option<StoreError>,
}

/// Result of scanning an item.
pub(super) struct Outcome {
    /// Sightings of known keys that are not reported yet.
    pub(super) sightings: CleanSightings,
    /// Number of candidates beyond [`MAX_LOOKUPS`].
    pub(super) not_looked_up: u64,
    /// `Ok` if all other candidates were looked up, and reported if necessary.
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
                sightings: CleanSightings::default(),
                looked_up: 0,
                not_looked_up: 0,
                looked_up_at: Instant::now(),
                is_late: false,
                failed: None,
            },
            blobs: 0,
            known_blobs: 0,
            clean_blobs: Vec::new(),
            bytes: 0,
        }
    }

    /// Scans a text and its path. Does nothing after a failure: the item can only fail.
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
                // A key in a path has no line; links to the file go to its first one.
                let line = Line {
                    linked: 1,
                    recorded: None,
                };
                found.add(candidate.value, line, &mut place, places, text);
            });
        }
        if self.found.looked_up_at.elapsed() >= EARLY {
            self.pause();
        }
    }

    /// Looks up the candidates so far and reports the keys among them, before more of the item is waited for.
    pub(super) fn pause(&mut self) {
        self.found.report_early();
    }

    fn look_inside(&mut self, text: &Text<'_>) {
        let mut any = false;
        let mut place = None;
        let (found, places) = (&mut self.found, self.places);
        let mut add = |candidate: Candidate| {
            any = true;
            // Nobody can look up a line of a commit or tree, so it is not recorded.
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

    /// Looks up the remaining candidates and returns the result.
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
    /// Adds a candidate of `text`. The first one that is added creates the place of the text, which the others share.
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
        let at = |candidates: &mut Candidates<_>| {
            *place.get_or_insert_with(|| candidates.place(places.of(text)))
        };
        self.candidates.add(value, at, Some(line));
        if self.candidates.is_full() {
            self.look_up();
            *place = None;
        }
    }

    /// Looks up the candidates and reports all sightings. If that fails, they are kept for the end of the item, and the
    /// database is left alone until then.
    fn report_early(&mut self) {
        let has_any = !self.candidates.is_empty() || !self.sightings.is_empty();
        if self.is_late || self.failed.is_some() || !has_any {
            return;
        }
        let candidates = self.candidates.len();
        let reported = self.try_look_up().and_then(|()| {
            self.looked_up += candidates;
            self.reporter.report(&mut self.sightings)
        });
        if let Err(error) = reported {
            tracing::debug!(%error, "findings are reported at the end of their push");
            self.is_late = true;
        }
        self.looked_up_at = Instant::now();
    }

    /// Looks up which candidates are known keys.
    fn look_up(&mut self) {
        self.looked_up += self.candidates.len();
        self.looked_up_at = Instant::now();
        if let Err(error) = self.try_look_up() {
            self.failed.get_or_insert(error);
        }
    }

    fn try_look_up(&mut self) -> Result<(), StoreError> {
        let reporter = self.reporter;
        let (store, runtime) = (reporter.responder.store(), reporter.runtime);
        let known = runtime.block_on(self.candidates.known(store))?;
        for sighting in self.candidates.sightings(&known, runtime) {
            self.sightings.push(sighting);
            // Even in the middle of an item, and in pieces that are little: more waits for everybody else, and a place
            // of a worker with it. Reporting a key twice is harmless.
            if self.sightings.len() >= LITTLE {
                reporter.report(&mut self.sightings)?;
            }
        }
        self.candidates.clear(&known);
        Ok(())
    }
}
