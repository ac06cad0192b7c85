//! Five-field crontab schedules, in UTC.
//!
//! The `cron` crate expects six fields and counts weekdays from 1 for Sunday, so the crontab syntax that
//! people know is parsed here and passed to the crate as plain lists of numbers. As in crontab(5), if
//! both the day of the month and the day of the week are restricted (neither begins with `*`), a time
//! matches when either of them does. The crate requires both to match, so that case becomes two
//! schedules.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use jiff::Timestamp;

/// A schedule such as `*/5 * * * *` or `30 4 1,15 * fri`.
#[derive(Clone, PartialEq, Eq)]
pub struct CronSchedule {
    text: String,
    /// One schedule, or two of which the earlier time counts.
    schedules: Vec<cron::Schedule>,
}

struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of the values from `min` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        min: 0,
        max: 59,
        names: &[],
    },
    Field {
        name: "hour",
        min: 0,
        max: 23,
        names: &[],
    },
    Field {
        name: "day of the month",
        min: 1,
        max: 31,
        names: &[],
    },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        name: "day of the week",
        min: 0,
        max: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

impl CronSchedule {
    /// Parses five fields: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday).
    ///
    /// # Errors
    /// Returns a sentence that names the field; it does not quote the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(format!(
                "a cron expression has five fields (minute, hour, day of the month, month, day of the week), not {}",
                parts.len()
            ));
        };
        let minutes = FIELDS[0].list(minute)?;
        let hours = FIELDS[1].list(hour)?;
        let days = FIELDS[2].list(day)?;
        let months = FIELDS[3].list(month)?;
        let weekdays = weekdays_from_one(&FIELDS[4].values(weekday)?);
        let either_day = !day.starts_with('*') && !weekday.starts_with('*');
        let alternatives = if either_day {
            vec![(days.as_str(), "*"), ("*", weekdays.as_str())]
        } else {
            vec![(days.as_str(), weekdays.as_str())]
        };
        let schedules = alternatives
            .into_iter()
            .map(|(days, weekdays)| {
                cron::Schedule::from_str(&format!("0 {minutes} {hours} {days} {months} {weekdays}"))
                    .map_err(|_| "not a cron expression".to_owned())
            })
            .collect::<Result<Vec<_>, String>>()?;
        let schedule = Self {
            text: parts.join(" "),
            schedules,
        };
        // Computed from a fixed time, so that the answer does not depend on the date: 8 years contain
        // every date.
        if schedule.next_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err("this date never comes".to_owned());
        }
        Ok(schedule)
    }

    /// Returns the first time of the schedule later than `at`, in whole minutes of UTC. Returns `None`
    /// after the year 2100.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let at = DateTime::<Utc>::from_timestamp(at.as_second(), 0)?;
        let times = self.schedules.iter();
        let times = times.filter_map(|schedule| schedule.after(&at).next());
        Timestamp::from_second(times.min()?.timestamp()).ok()
    }
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronSchedule({})", self.text)
    }
}

impl Field {
    /// Converts a field to the crate's syntax: `*`, or a list of all numbers.
    fn list(&self, text: &str) -> Result<String, String> {
        let values = self.values(text)?;
        let all = self.max - self.min + 1;
        Ok(written(&values, all))
    }

    fn values(&self, text: &str) -> Result<BTreeSet<u32>, String> {
        let mut values = BTreeSet::new();
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, Some(self.step(step)?)),
                None => (item, None),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.min, self.max),
                Some((from, to)) => (self.value(from)?, self.value(to)?),
                // `5/10` is every tenth from 5 on, as crontabs commonly read it.
                None if step.is_some() => (self.value(range)?, self.max),
                None => (self.value(range)?, self.value(range)?),
            };
            if from > to {
                return Err(format!("{}: a range has to go upwards", self.name));
            }
            values.extend((from..=to).step_by(step.unwrap_or(1)));
        }
        Ok(values)
    }

    fn step(&self, text: &str) -> Result<usize, String> {
        let step = number(text).and_then(|step| usize::try_from(step).ok());
        step.filter(|step| *step > 0)
            .ok_or_else(|| format!("{}: a step has to be a number from 1 on", self.name))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().zip(self.min..);
        let named = named
            .filter(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, value)| value)
            .next();
        named
            .or_else(|| number(text))
            .filter(|value| (self.min..=self.max).contains(value))
            .ok_or_else(|| self.expected())
    }

    fn expected(&self) -> String {
        let names = match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!(", or {first} to {last}"),
            _ => String::new(),
        };
        format!(
            "{}: has to be a number from {} to {}{names}",
            self.name, self.min, self.max
        )
    }
}

/// Parses a number of digits only: `str::parse` would accept `+5` as well.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Converts weekdays from 0 or 7 for Sunday to 1 for Sunday.
fn weekdays_from_one(weekdays: &BTreeSet<u32>) -> String {
    let weekdays: BTreeSet<u32> = weekdays.iter().map(|day| day % 7 + 1).collect();
    written(&weekdays, 7)
}

fn written(values: &BTreeSet<u32>, all: u32) -> String {
    if values.len() == all as usize {
        return "*".to_owned();
    }
    let values: Vec<String> = values.iter().map(u32::to_string).collect();
    values.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(cron: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = CronSchedule::parse(cron).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        while times.len() < count {
            at = schedule.next_after(at).unwrap();
            times.push(at.to_string());
        }
        times
    }

    // 2026-11-22 is a Sunday.
    const SUNDAY: &str = "2026-11-22T00:00:00Z";

    #[test]
    fn counts_weekdays_as_crontab_does() {
        for sunday in ["0", "7", "sun", "SUN"] {
            assert_eq!(
                times(&format!("0 12 * * {sunday}"), SUNDAY, 2),
                ["2026-11-22T12:00:00Z", "2026-11-29T12:00:00Z"],
                "{sunday}"
            );
        }
        assert_eq!(
            times("0 12 * * 1-5", SUNDAY, 2),
            ["2026-11-23T12:00:00Z", "2026-11-24T12:00:00Z"]
        );
        // Friday, Saturday, Sunday; an off-by-one would give other days.
        assert_eq!(
            times("0 12 * * 5-7", "2026-11-23T00:00:00Z", 3),
            [
                "2026-11-27T12:00:00Z",
                "2026-11-28T12:00:00Z",
                "2026-11-29T12:00:00Z"
            ]
        );
        // 0, 2, 4, 6: Sunday, Tuesday, Thursday, Saturday.
        assert_eq!(
            times("0 12 * * */2", SUNDAY, 4)
                .iter()
                .map(|time| &time[8..10])
                .collect::<Vec<_>>(),
            ["22", "24", "26", "28"]
        );
        assert_eq!(times("0 0 * * 0-7", SUNDAY, 1), ["2026-11-23T00:00:00Z"]);
        assert_eq!(times("0 0 * * 0-6", SUNDAY, 1), ["2026-11-23T00:00:00Z"]);
    }

    #[test]
    fn either_day_counts_when_both_are_restricted() {
        assert_eq!(
            times("0 0 1 * mon", SUNDAY, 3),
            [
                "2026-11-23T00:00:00Z",
                "2026-11-30T00:00:00Z",
                "2026-12-01T00:00:00Z"
            ]
        );
        // A star with a step counts as unrestricted, so both have to match.
        assert_eq!(times("0 0 */2 * mon", SUNDAY, 1), ["2026-11-23T00:00:00Z"]);
        assert_eq!(times("0 0 13 * *", SUNDAY, 1), ["2026-12-13T00:00:00Z"]);
    }

    #[test]
    fn reads_steps_ranges_lists_and_names() {
        assert_eq!(
            times("10-30/10,45 3 * feb,dec *", SUNDAY, 4)
                .iter()
                .map(|time| &time[5..16])
                .collect::<Vec<_>>(),
            ["12-01T03:10", "12-01T03:20", "12-01T03:30", "12-01T03:45"]
        );
        assert_eq!(
            times("50/5 * * * *", SUNDAY, 3)
                .iter()
                .map(|time| &time[11..16])
                .collect::<Vec<_>>(),
            ["00:50", "00:55", "01:50"]
        );
        // Strictly later, also within the minute; a leap day is found years ahead.
        assert_eq!(
            times("* * * * *", "2026-11-22T00:00:00.5Z", 1),
            ["2026-11-22T00:01:00Z"]
        );
        assert_eq!(times("0 0 29 2 *", SUNDAY, 1), ["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn does_not_move_with_any_countrys_clock() {
        // The night in which clocks change in Europe: 02:30 occurs once, and an hour is an hour.
        assert_eq!(
            times("30 * * * *", "2027-03-28T00:00:00Z", 3),
            [
                "2027-03-28T00:30:00Z",
                "2027-03-28T01:30:00Z",
                "2027-03-28T02:30:00Z"
            ]
        );
    }

    #[test]
    fn names_the_wrong_field() {
        for (cron, wrong) in [
            ("* * * *", "five fields"),
            ("0 * * * * *", "five fields"),
            ("@daily", "five fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of the week"),
            ("* * * * mo", "sun to sat"),
            ("5-1 * * * *", "upwards"),
            ("*/0 * * * *", "step"),
            ("1,,2 * * * *", "minute"),
            ("+5 * * * *", "minute"),
            ("0 0 30 2 *", "never"),
        ] {
            let error = CronSchedule::parse(cron).unwrap_err();
            assert!(error.contains(wrong), "{cron}: {error}");
        }
    }
}
