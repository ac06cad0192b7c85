//! Values of keys as others write them, in the API, on the command line and in imported rows alike.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// First year that no key or token ends in: `9999-12-31T23:59:59Z` is how databases without an infinity say "never".
const NEVER: i16 = 9999;

/// A leap year, so that each date that is one in some year is one in it.
const ANY_YEAR: &str = "2000";

/// Returns whether a text shows nothing: it is empty, or all white space and invisible characters.
pub fn is_blank(text: &str) -> bool {
    let is_invisible = |c: char| {
        let others = ['\u{ad}', '\u{2060}', '\u{feff}'];
        c.is_whitespace() || ('\u{200b}'..='\u{200d}').contains(&c) || others.contains(&c)
    };
    text.chars().all(is_invisible)
}

/// Returns the end that a time means, or `None` for one in the year 9999, which means that there is no end.
pub fn end_at(at: Timestamp) -> Option<Timestamp> {
    Some(at).filter(|at| at.to_zoned(TimeZone::UTC).year() < NEVER)
}

/// Parses a time as RFC 3339 has it, or a date, which is midnight in UTC at its start. One that is later than the last
/// that can be represented, as `9999-12-31T23:59:59Z` is, becomes that one, with an offset or without: PostgreSQL writes
/// `9999-12-31 23:59:59`.
pub fn time(text: &str) -> Option<Timestamp> {
    parse(text).or_else(|| is_later(text).then_some(Timestamp::MAX))
}

fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    // A date with a time and no offset would parse as well, without its time.
    let is_date = |b: u8| b.is_ascii_digit() || b"+-".contains(&b);
    let date = Some(text).filter(|text| text.bytes().all(is_date))?;
    let date: Date = date.parse().ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Returns whether a text is a time after the last that can be represented: one of the year 9999, or with a longer year.
fn is_later(text: &str) -> bool {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let Some((year, rest)) = unsigned.split_once('-') else {
        return false;
    };
    let is_year = (4..=6).contains(&year.len()) && year.bytes().all(|b| b.is_ascii_digit());
    let is_far = year.parse().is_ok_and(|year: u32| year >= 9999);
    let is_time = |rest: &str| parse(&format!("{ANY_YEAR}-{rest}")).is_some();
    is_year && is_far && (is_time(rest) || is_time(&format!("{rest}Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_far_away_is_one() {
        let at = |text: &str| time(text).and_then(end_at).map(|at| at.to_string());
        assert_eq!(
            at("9998-12-31T23:59:59Z").as_deref(),
            Some("9998-12-31T23:59:59Z")
        );
        assert_eq!(
            at("2027-01-31 08:00:00.25+01").as_deref(),
            Some("2027-01-31T07:00:00.25Z")
        );
        assert_eq!(at("2027-01-31").as_deref(), Some("2027-01-31T00:00:00Z"));
        for never in [
            "9999-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999+00:00",
            "9999-12-31 23:59:59Z",
            "9999-12-31 23:59:59",
            "9999-12-31 23:59:59+00",
            "9999-12-31 23:59:59.999999",
            "9999-12-31 23:59:59.999999+00",
            "9999-12-31 23:59:59-05:30",
            "9999-12-31T23:59:59",
            "10000-01-01 00:59:59+01",
            "9999-12-31",
            "+275760-09-13T00:00:00.000Z",
            "10000-02-29T00:00:00Z",
        ] {
            assert!(time(never).is_some(), "{never}");
            assert_eq!(at(never), None, "{never}");
        }
        for wrong in [
            "",
            "never",
            "9999",
            "9999-13-01",
            "9999-12-31T25:00:00Z",
            "9999-12-31 25:00:00",
            "9999-12-31 23:59:59 x",
            "infinity",
            "2027-01-31 08:00:00",
            "2027-01-31T08:00:00",
            "99999999-12-31",
            "2027-02-30",
            "x9999-12-31",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_shows_nothing_is_blank() {
        for blank in ["", " ", "\t\n", "\u{a0}\u{3000}", "\u{200b}", "\u{feff} "] {
            assert!(is_blank(blank), "{blank:?}");
        }
        assert!(!is_blank(" x ") && !is_blank("\u{200d}👩"));
    }
}
