//! `[work]`: limits of the queue of work items, and the retention of what was scanned.

use std::time::Duration;

use crate::config::read::Section;

/// The `[work]` section.
#[derive(Debug, Clone)]
pub struct Work {
    /// Maximum number of waiting work items from the firehose. The oldest items beyond it are shed.
    pub max_waiting: u64,
    /// Maximum time that a work item from the firehose waits.
    pub max_wait: Duration,
    /// Retention of the record of what was scanned. An event that recurs after that is scanned again.
    pub remember: Duration,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            max_waiting: 10_000,
            max_wait: Duration::from_mins(10),
            remember: Duration::from_hours(3 * 24),
        }
    }
}

pub(super) fn work(section: Section<'_>) -> Work {
    let mut work = Work::default();
    if let Some(found) = section.count("max_waiting", "10000") {
        work.max_waiting = found.value;
    }
    if let Some(found) = section.duration("max_wait", r#""10m""#) {
        work.max_wait = found.value;
    }
    if let Some(found) = section.duration("remember", r#""3d""#) {
        work.remember = found.value;
        // Feeds repeat events for hours; GitHub's are up to 6 h late.
        if found.value < Duration::from_hours(24) {
            section.refuse(
                &found.place,
                "remember",
                "is too short: what a feed repeats would be scanned again",
                "at least 1d",
            );
        }
    }
    section.finish();
    work
}
