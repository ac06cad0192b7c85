//! Times on the command line.

use jiff::{SignedDuration, Timestamp};

use crate::config::parse_duration;
use crate::issuer::{end_at, time};

/// Expiry of a key or an access token, as given with `--expires`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Never.
    Never,
    /// This long after creation.
    After(SignedDuration),
    /// At a point in time.
    At(Timestamp),
}

impl Expiry {
    /// Returns the expiry of an item created at `now`, or `None` if it never expires: there is no end from the year
    /// 9999 on.
    ///
    /// # Errors
    /// Returns an error if the expiry is not in the future.
    pub(super) fn from(self, now: Timestamp) -> Result<Option<Timestamp>, String> {
        let at = match self {
            Self::Never => return Ok(None),
            Self::After(duration) => now.checked_add(duration).unwrap_or(Timestamp::MAX),
            Self::At(at) => at,
        };
        if at <= now {
            return Err("lies in the past".to_owned());
        }
        Ok(end_at(at))
    }
}

/// Parses `never`, a duration such as `90d`, a date (midnight UTC at its start) or an RFC 3339 time.
///
/// # Errors
/// Returns a message that lists these forms.
pub(super) fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    if let Ok(duration) = duration(text) {
        return Ok(Expiry::After(duration));
    }
    let at = time(text).ok_or_else(|| WRONG_EXPIRY.to_owned())?;
    Ok(Expiry::At(at))
}

/// Parses a date (midnight UTC at its start) or an RFC 3339 time.
///
/// # Errors
/// Returns a message that lists these forms.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let wrong = || "write a date (2027-01-31) or a time (2027-01-31T08:00:00Z)".to_owned();
    time(text).ok_or_else(wrong)
}

const WRONG_EXPIRY: &str =
    "write never, a duration (90d, 12h), a date (2027-01-31) or a time (2027-01-31T08:00:00Z)";

/// Parses a whole number followed by a unit: s, m, h, d, w or y (365 days).
///
/// # Errors
/// Returns a message that describes this form.
pub(super) fn duration(text: &str) -> Result<SignedDuration, String> {
    const WRONG: &str = "write a whole number and a unit: s, m, h, d, w or y, such as 24h";
    parse_duration(text)
        .and_then(|duration| duration.try_into().ok())
        .ok_or_else(|| WRONG.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_way_to_say_when() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, at) in [
            ("90d", "2027-02-20T12:00:00Z"),
            ("1y", "2027-11-22T12:00:00Z"),
            ("15m", "2026-11-22T12:15:00Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2027-01-31T08:00:00+01:00", "2027-01-31T07:00:00Z"),
        ] {
            let read = expiry(text).unwrap().from(now).unwrap().unwrap();
            assert_eq!(read.to_string(), at, "{text}");
        }
        assert_eq!(expiry("never").unwrap().from(now), Ok(None));
        for wrong in [
            "",
            "d",
            "90",
            "1.5d",
            "-1d",
            "soon",
            "2027-13-01",
            "1D",
            "9é",
        ] {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
        for past in ["0s", "2020-01-01"] {
            assert!(expiry(past).unwrap().from(now).is_err(), "{past}");
        }
        for never in ["99999y", "9999-12-31", "9999-12-31T23:59:59Z"] {
            assert_eq!(expiry(never).unwrap().from(now), Ok(None), "{never}");
        }
    }
}
