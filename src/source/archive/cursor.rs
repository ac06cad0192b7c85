//! Positions in an archive: of the schedule, and of each backfill.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::hour::{Hour, Period};

/// Maximum number of backfills that are remembered; the oldest are dropped first.
const MAX_BACKFILLS: usize = 16;

/// Maximum number of runs of hours that are remembered per kind of failure.
const MAX_RUNS: usize = 500;

/// Maximum number of runs of hours that are named in a text.
const MAX_NAMED: usize = 5;

/// Positions in an archive; stored in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Position of the schedule; `None` before its first poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheduled: Option<Track>,
    /// The backfills, the most recently active one last.
    #[serde(default)]
    backfills: Vec<Backfill>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Backfill {
    #[serde(flatten)]
    period: Period,
    track: Track,
}

/// A reader of hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The schedule, which reads each hour as it appears.
    Schedule,
    /// A backfill of this period.
    Backfill(Period),
}

/// Position of one reader. Counts cover all its hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Track {
    /// The hour to be read next.
    pub(super) next: Hour,
    /// Number of pieces of that hour that were counted already.
    #[serde(default)]
    pub(super) counted: u64,
    /// Number of pieces of that hour among which all that names many keys is written down. Other pieces are when they
    /// are read, and this follows.
    #[serde(default)]
    pub(super) written: u64,
    /// Number of failed attempts to read that hour.
    #[serde(default)]
    pub(super) tries: u32,
    /// Time of the last attempt that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tried_at: Option<Timestamp>,
    /// Number of events that were read.
    #[serde(default)]
    pub(super) events: u64,
    /// Number of new work items.
    #[serde(default)]
    pub(super) items: u64,
    /// Number of pieces that could not be read.
    #[serde(default)]
    pub(super) malformed: u64,
    /// Number of compressed bytes received.
    #[serde(default)]
    pub(super) bytes: u64,
    /// Hours that the archive does not have.
    #[serde(default)]
    pub(super) missing: Runs,
    /// Hours that could not be read to their end.
    #[serde(default)]
    pub(super) incomplete: Runs,
}

/// A set of hours, as runs of a first hour and a number of hours: outages last for hours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Runs(Vec<(Hour, u64)>);

impl Cursor {
    /// Returns the position of a reader, or `None` if it has not started.
    pub(super) fn track(&self, reader: Reader) -> Option<&Track> {
        match reader {
            Reader::Schedule => self.scheduled.as_ref(),
            Reader::Backfill(period) => {
                let mut backfills = self.backfills.iter();
                let found = backfills.find(|backfill| backfill.period == period)?;
                Some(&found.track)
            }
        }
    }

    /// Records the position of a reader.
    pub(super) fn note(&mut self, reader: Reader, track: Track) {
        match reader {
            Reader::Schedule => self.scheduled = Some(track),
            Reader::Backfill(period) => {
                self.backfills.retain(|backfill| backfill.period != period);
                self.backfills.push(Backfill { period, track });
                if self.backfills.len() > MAX_BACKFILLS {
                    self.backfills.remove(0);
                }
            }
        }
    }

    /// Removes an hour that was read to its end from the failed hours of all readers.
    pub(super) fn mended(&mut self, hour: Hour) {
        let backfills = self.backfills.iter_mut();
        let tracks = backfills.map(|backfill| &mut backfill.track);
        for track in tracks.chain(&mut self.scheduled) {
            track.missing.remove(hour);
            track.incomplete.remove(hour);
        }
    }

    /// Returns a description of the hours that could not be read, or `None` if there are none.
    pub(super) fn unseen(&self) -> Option<String> {
        let tracks = || {
            let backfills = self.backfills.iter().map(|backfill| &backfill.track);
            backfills.chain(&self.scheduled)
        };
        let mut missing = Runs::default();
        let mut incomplete = Runs::default();
        for track in tracks() {
            missing.add_all(&track.missing);
            incomplete.add_all(&track.incomplete);
        }
        let mut parts = Vec::new();
        if !missing.is_empty() {
            parts.push(format!("the archive does not have {}", missing.words()));
        }
        if !incomplete.is_empty() {
            let hours = incomplete.words();
            parts.push(format!("could not be read to the end: {hours}"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Track {
    pub(super) fn new(next: Hour) -> Self {
        Self {
            next,
            counted: 0,
            written: 0,
            tries: 0,
            tried_at: None,
            events: 0,
            items: 0,
            malformed: 0,
            bytes: 0,
            missing: Runs::default(),
            incomplete: Runs::default(),
        }
    }

    /// Moves on to the next hour, whether or not this one could be read.
    pub(super) fn go_on(&mut self) {
        self.begin_at(self.next.plus(1));
    }

    /// Goes to an hour of which nothing was read.
    pub(super) fn begin_at(&mut self, hour: Hour) {
        self.next = hour;
        self.counted = 0;
        self.written = 0;
        self.tries = 0;
        self.tried_at = None;
    }
}

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns an iterator over the hours.
    pub(super) fn hours(&self) -> impl Iterator<Item = Hour> {
        let runs = self.0.iter();
        runs.flat_map(|(first, count)| (0..*count).map(|n| first.plus(n.cast_signed())))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn add(&mut self, hour: Hour) {
        if self.has(hour) {
            return;
        }
        match self.0.last_mut() {
            Some((first, count)) if hour > *first && hour.since(*first) == *count => *count += 1,
            _ => self.0.push((hour, 1)),
        }
        if self.0.len() > MAX_RUNS {
            self.0.remove(0);
        }
    }

    fn has(&self, hour: Hour) -> bool {
        let mut runs = self.0.iter();
        runs.any(|(first, count)| hour >= *first && hour.since(*first) < *count)
    }

    fn add_all(&mut self, others: &Self) {
        for hour in others.hours() {
            self.add(hour);
        }
    }

    fn remove(&mut self, hour: Hour) {
        if !self.has(hour) {
            return;
        }
        let mut left = Self::default();
        for other in self.hours().filter(|other| *other != hour) {
            left.add(other);
        }
        *self = left;
    }

    /// Returns a text with the number of hours, and the names of the last runs.
    fn words(&self) -> String {
        let mut named: Vec<String> = Vec::new();
        let first = self.0.len().saturating_sub(MAX_NAMED);
        if first > 0 {
            named.push("…".to_owned());
        }
        for (hour, count) in &self.0[first..] {
            named.push(match count {
                1 => hour.to_string(),
                _ => format!("{hour} to {}", hour.plus(count.cast_signed() - 1)),
            });
        }
        let count = self.count();
        let hours = if count == 1 { "hour" } else { "hours" };
        format!("{count} {hours} ({})", named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(text: &str) -> Hour {
        text.parse().unwrap()
    }

    fn runs(hours: &[&str]) -> Runs {
        let mut runs = Runs::default();
        for text in hours {
            runs.add(hour(text));
        }
        runs
    }

    #[test]
    fn runs_are_counted_named_and_taken_back() {
        let mut runs = runs(&[
            "2015-01-01-22",
            "2015-01-01-23",
            "2015-01-02-0",
            "2015-01-03-5",
        ]);
        runs.add(hour("2015-01-01-23"));
        assert_eq!(
            runs.words(),
            "4 hours (2015-01-01-22 to 2015-01-02-0, 2015-01-03-5)"
        );
        runs.remove(hour("2015-01-01-23"));
        runs.remove(hour("2015-01-03-5"));
        assert_eq!(runs.words(), "2 hours (2015-01-01-22, 2015-01-02-0)");
        for n in 0..2000 {
            runs.add(hour("2016-01-01-0").plus(2 * n));
        }
        assert_eq!(runs.0.len(), MAX_RUNS);
        assert!(
            runs.words().starts_with("500 hours (…, "),
            "{}",
            runs.words()
        );
    }

    #[test]
    fn each_reader_has_a_track_of_its_own_and_the_oldest_are_forgotten() {
        let period = |n: i64| Period {
            from: hour("2015-01-01-0"),
            to: hour("2015-01-01-0").plus(n),
        };
        let mut cursor = Cursor::default();
        cursor.note(Reader::Schedule, Track::new(hour("2026-01-01-1")));
        for n in 1..=20 {
            let mut track = Track::new(period(n).from);
            track.missing = runs(&["2015-01-01-0"]);
            cursor.note(Reader::Backfill(period(n)), track);
        }
        let json = serde_json::to_string(&cursor).unwrap();
        let mut again: Cursor = serde_json::from_str(&json).unwrap();
        assert_eq!(again.track(Reader::Backfill(period(4))), None);
        for n in 5..=20 {
            assert!(again.track(Reader::Backfill(period(n))).is_some(), "{n}");
        }
        assert_eq!(
            again.unseen().as_deref(),
            Some("the archive does not have 1 hour (2015-01-01-0)")
        );
        again.mended(hour("2015-01-01-0"));
        assert_eq!(again.unseen(), None);
        let scheduled = again.track(Reader::Schedule).unwrap();
        assert_eq!(scheduled.next, hour("2026-01-01-1"));
    }
}
