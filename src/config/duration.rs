//! Durations in human-readable form.

use std::time::Duration;

const UNITS: [(char, u64); 6] = [
    ('y', 365 * 86_400),
    ('w', 7 * 86_400),
    ('d', 86_400),
    ('h', 3_600),
    ('m', 60),
    ('s', 1),
];

/// Parses a duration such as `"90s"`, `"10m"`, `"24h"`, `"7d"`, `"2w"` or `"7y"` (of 365 days). Returns
/// `None` for any other text.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (at, unit) = text.char_indices().next_back()?;
    let (_, seconds) = UNITS.into_iter().find(|(known, _)| *known == unit)?;
    let number = &text[..at];
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    Some(Duration::from_secs(seconds))
}

/// Formats a duration, truncated to whole seconds, with the largest unit that divides it.
pub(super) fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let fits = |(_, unit): &(char, u64)| seconds.is_multiple_of(*unit);
    let (unit, length) = UNITS.into_iter().find(fits).unwrap_or(('s', 1));
    if seconds == 0 {
        return "0s".to_owned();
    }
    format!("{}{unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_lengths_of_time() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("10m", 600),
            ("24h", 86_400),
            ("7y", 7 * 365 * 86_400),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for wrong in [
            "",
            "s",
            "10",
            "1.5h",
            "-1s",
            "1 h",
            "1H",
            "9é",
            "99999999999999999999s",
            "999999999999999y",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for (seconds, text) in [
            (0, "0s"),
            (90, "90s"),
            (600, "10m"),
            (86_400, "1d"),
            (604_800, "1w"),
        ] {
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
    }
}
