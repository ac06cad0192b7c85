//! Hours in the archive's notation, and periods of hours.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Length of an hour, in seconds.
const HOUR: i64 = 3600;

/// Maximum number of hours in a period: ten years.
const MAX_HOURS: u64 = 10 * 366 * 24;

/// An hour in UTC, written the way the archive names its files: `2015-01-01-5`, without a leading zero in the hour.
///
/// Source: <https://www.gharchive.org/>, "Activity for 1/1/2015 @ 3PM UTC: 2015-01-01-15.json.gz".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Hour(i64);

/// The text does not name an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no hour of the form 2015-01-01-5")]
pub(super) struct NoHour;

impl Hour {
    /// Returns the hour that contains `at`.
    pub(super) fn of(at: Timestamp) -> Self {
        Self(at.as_second().div_euclid(HOUR))
    }

    /// Returns the start of the hour.
    pub(super) fn begin(self) -> Timestamp {
        Timestamp::from_second(self.0.saturating_mul(HOUR)).unwrap_or(Timestamp::MAX)
    }

    /// Returns the end of the hour, exclusive.
    pub(super) fn end(self) -> Timestamp {
        self.plus(1).begin()
    }

    /// Returns the hour that is `hours` later, or earlier if negative.
    pub(super) fn plus(self, hours: i64) -> Self {
        Self(self.0.saturating_add(hours))
    }

    /// Returns the number of hours from `earlier` to this one, or 0 if `earlier` is later.
    pub(super) fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default()
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = TimeZone::UTC.to_datetime(self.begin());
        write!(f, "{}-{}", at.date(), at.hour())
    }
}

impl FromStr for Hour {
    type Err = NoHour;

    fn from_str(text: &str) -> Result<Self, NoHour> {
        let (date, hour) = text.rsplit_once('-').ok_or(NoHour)?;
        let date: Date = date.parse().map_err(|_| NoHour)?;
        let hour: i64 = hour.parse().map_err(|_| NoHour)?;
        if !(0..24).contains(&hour) {
            return Err(NoHour);
        }
        let midnight = TimeZone::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight()));
        Ok(Self::of(midnight.map_err(|_| NoHour)?).plus(hour))
    }
}

impl From<Hour> for String {
    fn from(hour: Hour) -> Self {
        hour.to_string()
    }
}

impl TryFrom<String> for Hour {
    type Error = NoHour;

    fn try_from(text: String) -> Result<Self, NoHour> {
        text.parse()
    }
}

/// A span of whole hours, in UTC, that is read from an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Period {
    /// First hour.
    pub(super) from: Hour,
    /// Hour after the last one.
    pub(super) to: Hour,
}

/// A pair of texts is not a valid period.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeriodError {
    /// The start or end is not a time.
    #[error(
        "the end of a period has to be a day such as 2026-01-01, or a time such as 2026-01-01T05:00:00Z"
    )]
    NoTime,
    /// The period does not start before it ends.
    #[error("the period has to begin before it ends")]
    Empty,
    /// The period ends in the future, or within the current hour.
    #[error("the period has to end by {latest}: later hours are not over yet")]
    Future {
        /// Latest end that is possible now.
        latest: Timestamp,
    },
    /// The period is longer than ten years.
    #[error("the period has to be 10 years at most; read it in parts")]
    TooLong,
}

impl Period {
    /// Parses the period from `from` up to, but excluding, `to`. Each is a day (`2026-01-01`, meaning its midnight in
    /// UTC) or a time (`2026-01-01T05:00:00Z`, or with another offset). A start or end within an hour includes the
    /// whole hour.
    ///
    /// # Errors
    /// Returns a [`PeriodError`] if the start or end is not a time, if they are in the wrong order or too far apart,
    /// or if the last hour of the period is not over at `now`.
    pub fn parse(from: &str, to: &str, now: Timestamp) -> Result<Self, PeriodError> {
        let (from, to) = (time(from)?, time(to)?);
        if from >= to {
            return Err(PeriodError::Empty);
        }
        let almost = to
            .checked_sub(SignedDuration::from_nanos(1))
            .map_err(|_| PeriodError::NoTime)?;
        let period = Self {
            from: Hour::of(from),
            to: Hour::of(almost).plus(1),
        };
        let now = Hour::of(now);
        if period.to > now {
            return Err(PeriodError::Future {
                latest: now.begin(),
            });
        }
        if period.hours() > MAX_HOURS {
            return Err(PeriodError::TooLong);
        }
        Ok(period)
    }

    /// Returns the number of hours.
    pub fn hours(&self) -> u64 {
        self.to.since(self.from)
    }

    /// Returns the start of the period.
    pub fn begins_at(&self) -> Timestamp {
        self.from.begin()
    }

    /// Returns the end of the period, exclusive.
    pub fn ends_at(&self) -> Timestamp {
        self.to.begin()
    }
}

/// Parses a time, or a day as its midnight in UTC.
fn time(text: &str) -> Result<Timestamp, PeriodError> {
    let text = text.trim();
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    // A date and time without an offset would be parsed as a day, silently dropping the time.
    if text.contains([':', 'T', 't', ' ']) {
        return Err(PeriodError::NoTime);
    }
    let date: Date = text.parse().map_err(|_| PeriodError::NoTime)?;
    let midnight: DateTime = date.into();
    TimeZone::UTC
        .to_timestamp(midnight)
        .map_err(|_| PeriodError::NoTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn hours_are_written_without_a_leading_zero() {
        let hour = Hour::of(at("2015-01-01T05:59:59.999Z"));
        assert_eq!(hour.to_string(), "2015-01-01-5");
        assert_eq!("2015-01-01-5".parse(), Ok(hour));
        assert_eq!(hour.begin(), at("2015-01-01T05:00:00Z"));
        assert_eq!(hour.plus(19).to_string(), "2015-01-02-0");
        assert_eq!(hour.plus(-6).to_string(), "2014-12-31-23");
        for text in ["", "2015-01-01", "2015-01-01-24", "2015-13-01-1", "x-1"] {
            assert_eq!(text.parse::<Hour>(), Err(NoHour), "{text}");
        }
    }

    #[test]
    fn periods_are_whole_hours_that_are_over() {
        let now = at("2026-11-22T12:30:00Z");
        let parse = |from, to| Period::parse(from, to, now);
        let year = parse("2025-01-01", "2026-01-01").unwrap();
        assert_eq!(year.hours(), 365 * 24);
        let odd = parse("2026-01-01T05:30:00+01:00", "2026-01-01T05:00:01Z").unwrap();
        assert_eq!(odd.begins_at(), at("2026-01-01T04:00:00Z"));
        assert_eq!(odd.ends_at(), at("2026-01-01T06:00:00Z"));
        let latest = at("2026-11-22T12:00:00Z");
        assert_eq!(
            parse("2026-11-22", "2026-11-22T12:00:00Z").unwrap().hours(),
            12
        );
        for (from, to, wrong) in [
            (
                "2026-11-22",
                "2026-11-22T12:00:01Z",
                PeriodError::Future { latest },
            ),
            ("2026-11-22", "2027-01-01", PeriodError::Future { latest }),
            ("2026-01-02", "2026-01-02", PeriodError::Empty),
            ("2026-01-02", "2026-01-01", PeriodError::Empty),
            ("2011-02-12", "2026-01-01", PeriodError::TooLong),
            ("yesterday", "2026-01-01", PeriodError::NoTime),
            (
                "2026-01-01T05:00:00",
                "2026-02-01T05:00:00",
                PeriodError::NoTime,
            ),
            ("2026-01-01", "2026-1-5-7", PeriodError::NoTime),
        ] {
            assert_eq!(parse(from, to), Err(wrong), "{from} {to}");
        }
    }
}
